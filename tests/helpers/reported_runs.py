"""Runs and scores for the page of ``report``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from s3prl_dphubert import save_model
from s3prl_dphubert.compression.run_record import cost_of
from s3prl_dphubert.model import ModelConfig
from s3prl_dphubert.model.masks import Masks
from s3prl_dphubert.pruning.structured import cut
from s3prl_dphubert.superb.scoring import score_file, stored_statistics
from s3prl_dphubert.superb.scoring.uncertainty import Ratio, estimate
from tests.helpers.models import tiny
from tests.helpers.superb_runs import RECORD

VOICES = tuple("abcdefgh")
HOSTILE = (
    '<img src="https://example.org/x.png" onerror="window.hostile=1"><script>window.hostile=1</script>$a$'
)
"""Name that is markup, a script, a request and a formula of matplotlib."""


def write_run(folder: Path, teacher: str = "hubert_mini") -> Path:
    """Write what a finished run leaves: a model with emptied sublayers, logs, results and configuration."""
    model = cut(tiny("hubert"), Masks(heads={0: torch.zeros(4)}, ffn={1: torch.zeros(24)}))
    save_model(model, folder / "model")
    log = [
        {
            "update": n,
            "skipped": n // 30,
            "distillation": 1 / n,
            "sparsity": n / 60,
            "target_sparsity": n / 50,
        }
        for n in range(1, 31)
    ]
    log[-1]["valid_loss"] = 0.2
    for stage in ("stage1", "stage2"):
        (folder / stage).mkdir(parents=True)
        (folder / stage / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in log))
    losses = {"teacher_copy": 0.0, "stage1": 0.25, "pruned": 0.25, "stage2": 0.125}
    results = {
        "valid": {name: {"loss": loss} for name, loss in losses.items()},
        "sparsity": {"parameters": {"target": 0.5, "expected": 0.501}},
        "environment": {stage: {"torch": "2.14.1", "threads": 2} for stage in ("stage1", "stage2")},
        "teacher": units(tiny("hubert").config),
        "model": units(model.config),
        "macs_seconds": 10.0,
    }
    (folder / "results.json").write_text(json.dumps(results))
    config = {"teacher": teacher, "data": {"train": HOSTILE}, "stage1": {}, "stage2": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def units(config: ModelConfig) -> dict:
    """Return what results.json states of a model."""
    shape = {"conv": config.conv_channels, "heads": config.heads, "ffn": config.ffn}
    return {**vars(cost_of(config, 10.0)), **shape}


def write_scores(folder: Path, *names: str, weighted: bool = True) -> Path:
    """Write KS of some models, with errors by voice and layer weights."""
    for place, name in enumerate(names):
        statistic = Ratio(VOICES, tuple(40.0 + 5 * place + n for n in range(8)), (100.0,) * 8)
        record = replace(
            RECORD,
            upstream=name,
            metrics={"acc": 100 * sum(statistic.numerators) / 800},
            benchmark="FreeSUPERB",
            parameters=1000 * (9 - place),
            standard_errors={"acc": estimate(statistic).standard_error},
            statistics={"acc": stored_statistics.to_plain(statistic)},
            layer_weights={"ks": (0.5, 0.25, 0.125, 0.125)} if weighted else {},
            versions={"torch": "2.14.1"},
        )
        score_file.write(record, folder / str(place) / "ks")
    return folder
