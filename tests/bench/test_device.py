"""The benchmark of a device, tried out on the CPU with tiny shapes, and on a GPU without numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.bench.device import DeviceBenchmark, measure, write
from s3prl_dphubert.bench.workload import Workload
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError, RunError
from s3prl_dphubert.pruning.structured import prune
from tests.helpers.models import gated, tiny

SHAPES = {"base": tiny("hubert").config, "pruned": prune(gated(tiny("hubert"))).config}
PADDED = Workload("2 × 0.3 to 0.5 s", (0.5, 0.3))


def small(out, **options):
    settings = {"repeats": 2, "precisions": ("fp32",), "shapes": SHAPES, "matrix": 64}
    settings |= {"workloads": [PADDED], "update": Workload("2 × 0.5 s", (0.5, 0.5)), "limit": 1e6}
    return DeviceBenchmark(out, "cpu", **settings | options)


@pytest.mark.slow
def test_every_case_is_measured_beside_others(tmp_path):
    paths = write(small(tmp_path / "out"))
    results = json.loads(paths[0].read_text())
    assert results["missing"] == {}
    rows = {(row["kind"], row["subject"], row["shape"]): row for row in results["rows"]}
    assert list(rows) == [
        ("update", "s3prl-dphubert", "base"),
        ("update", "transformers", "base"),
        ("update", "s3prl-dphubert, compiled", "base"),
        ("inference", "s3prl-dphubert", "base"),
        ("inference", "transformers", "base"),
        ("inference", "s3prl-dphubert", "pruned"),
    ]
    for row in rows.values():
        assert len(row["milliseconds"]) == 2
        seconds = 0.8 if row["kind"] == "inference" else 1.0
        median = sum(row["milliseconds"]) / 2 / 1000
        assert row["audio_seconds_per_second"] == pytest.approx(seconds / median)
        assert 0 < row["share"] < 1 and math.isfinite(row["share"])
    text = paths[1].read_text()
    for part in ("## An update of stage 1", "## Inference", "HuBERT Base", "audio-s/s", "share of peak"):
        assert part in text
    with pytest.raises(RunError, match="exists already"):
        write(small(tmp_path / "out"))


def test_what_the_time_does_not_suffice_for_is_named(tmp_path):
    results = measure(small(tmp_path, limit=1e-9))
    assert results["rows"] == []
    assert len(results["missing"]) == 6
    assert set(results["missing"].values()) == {"not begun within 1e-09 s"}


def test_a_case_that_fails_is_named_and_the_others_go_on(tmp_path):
    shapes = {"base": replace(SHAPES["base"], embed_dim=36, head_dim=9)}  # transformers cannot group 36
    results = measure(small(tmp_path, shapes=shapes, workloads=[PADDED]))
    assert any(row["subject"] == "s3prl-dphubert" for row in results["rows"])
    assert all("transformers" in name for name in results["missing"])


def test_wrong_settings_are_named_together(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        DeviceBenchmark(tmp_path, limit=0, repeats=0, reference=tmp_path)
    for part in (
        "limit is 0",
        "repeats is 0",
        "reference is",
        "device is 'cuda', and torch sees no GPU here",
    ):
        assert part in str(caught.value)
    assert main(["bench", "--device", "cuda", "--out", str(tmp_path / "out")]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["bench", "--device", "cpu", "--training", "--out", str(tmp_path)]) == 2
