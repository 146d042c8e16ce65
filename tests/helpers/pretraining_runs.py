"""Short runs of s3prl's pretraining on a few of the embedded clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import yaml

from s3prl_dphubert import save_model
from s3prl_dphubert.data.manifest import scan, write
from s3prl_dphubert.utils import resources
from tests.helpers.models import tiny

BATCH = {"seconds_per_batch": 6.0, "min_seconds": 0.4, "max_seconds": 2.0, "buckets": 3}
BUDGET = {"sparsity": 0.4, "warmup": 4, "tolerance": 1.0, "constraint": "projection"}
STAGE1 = {"lr": 1e-3, "gate_lr": 0.2, "warmup": 3}
STAGE2 = {"lr": 5e-4, "warmup": 2}


def runner(**changes):
    """The part of ``-c`` that says how long and how often."""
    steps = {"n_epochs": -1, "total_steps": 20, "log_step": 1, "save_step": 5, "max_keep": 2}
    return steps | {"gradient_accumulate_steps": 1, "gradient_clipping": 10.0} | changes


def upstream(place, **changes):
    """``-g`` of stage 1."""
    recipe = {"teacher": str(place / "teacher"), "seed": 3, "budget": BUDGET}
    return recipe | {"objective": {"groups": [[0], [1, 3]]}} | changes


def data(place, **changes):
    """``datarc``."""
    return {"train": str(place / "x.tsv"), "num_workers": 0, "batch": BATCH} | changes


def make_place(folder: Path) -> Path:
    """A tiny teacher, 24 of the embedded clips, and configurations."""
    manifests, skipped = scan([resources.find("assets/speech/asterisk")], min_seconds=0.4)
    write(folder / "x.tsv", {"": replace(manifests[""], entries=manifests[""].entries[:24])}, skipped)
    save_model(tiny("hubert"), folder / "teacher")
    adam = {"name": "DPHuBERT"}
    stage1 = {"pretrain_expert": {"datarc": data(folder)}, "optimizer": adam | STAGE1, "runner": runner()}
    several = runner(n_epochs=4, gradient_accumulate_steps=4, precision="bf16")
    files = {
        "g1": upstream(folder),
        "c1": stage1,
        "g2": {"base": "g1.yaml", "stage": 2, "stage1": str(folder / "whole")},
        "c2": stage1 | {"optimizer": adam | STAGE2, "runner": runner(total_steps=12, save_step=10)},
        "c3": stage1 | {"pretrain_expert": {"datarc": data(folder, num_workers=1)}, "runner": several},
    }
    for name, values in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder


def same(a, b, count):
    """Return whether two state dicts of so many tensors are equal to the bit."""
    assert a.keys() == b.keys()
    assert len(a) == count
    return all(torch.equal(a[name], b[name]) for name in a)
