"""Short runs of tiny models: a folder with a teacher, audio, manifests and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundfile
import torch
import yaml

from s3prl_dphubert import load_model, save_model
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.data.batches import BatchConfig, BatchStream
from s3prl_dphubert.data.manifest import scan, write
from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig
from s3prl_dphubert.distillation.task import Distillation, JointPruning
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.pruning.gates import GateConfig
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.utils.config_io import from_dict
from tests.helpers.models import tiny
from tests.helpers.speech import tone

STAGE = {
    "updates": 12,
    "warmup": 3,
    "accumulate": 1,
    "lr": 1e-3,
    "save_every": 2,
    "validate_every": 4,
    "log_every": 1,
    "num_workers": 0,
}


def make_place(folder: Path) -> Path:
    """Write 12 tones of 0.4 to 1 s, a teacher with dropout, and ``run.yaml``."""
    for index in range(12):
        audio = folder / "audio" / f"{index:02d}.wav"
        audio.parent.mkdir(exist_ok=True)
        soundfile.write(audio, tone(0.4 + 0.05 * index, hertz=150 + 40 * index), 16_000)
    manifests, skipped = scan([folder / "audio"], splits={"valid": "*[05].wav"})
    write(folder / "x.tsv", manifests, skipped)
    save_model(tiny("hubert"), folder / "teacher")
    (folder / "run.yaml").write_text(yaml.safe_dump(settings(folder)))
    return folder


def settings(place: Path) -> dict[str, Any]:
    """The plain values of a run's configuration."""
    return {
        "teacher": str(place / "teacher"),
        "data": {
            "train": str(place / "x.tsv"),
            "valid": str(place / "x.valid.tsv"),
            "batch": {"seconds_per_batch": 3.0, "min_seconds": 0.3, "max_seconds": 1.0, "buckets": 3},
        },
        "budget": {"sparsity": 0.4, "warmup": 4, "seconds": 1.0, "tolerance": 1.0},
        "objective": {"groups": [[0], [1, 3]]},
        "stage1": {**STAGE, "gate_lr": 0.2},
        "stage2": {**STAGE},
    }


def read_config(place: Path) -> CompressConfig:
    return from_dict(CompressConfig, yaml.safe_load((place / "run.yaml").read_text()))


def distillation(
    place: Path, budget: Budget | None = None, gates: dict[str, Any] | None = None, **objective: Any
) -> Distillation:
    """A task whose student starts as a copy of its teacher, under gates if there is a budget."""
    torch.manual_seed(0)
    teacher, model = load_model(place / "teacher"), load_model(place / "teacher")
    assert model.config.dropout == model.config.attention_dropout == 0.1
    matched = Objective(ObjectiveConfig(**{"groups": ((0,), (1, 3)), **objective}), 32, 32, 3, 3)
    config = TrainConfig(lr=1e-3, gate_lr=0.2, accumulate=1)
    if budget is None:
        return Distillation(teacher, model, matched, config)
    gated = GatedModel(model, GateConfig(**{"std": 1.0, **(gates or {})}))
    return JointPruning(teacher, gated, matched, config, budget)


def stream_of(place: Path, **options: Any) -> BatchStream:
    manifest = scan([place / "audio"])[0][""]
    return BatchStream(
        manifest, BatchConfig(seconds_per_batch=3.0, min_seconds=0.3, max_seconds=1.0, **options)
    )
