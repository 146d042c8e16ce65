"""Benchmark of training: the states of the gates, and measurements in separate processes."""

from __future__ import annotations

import json

import pytest
import torch

from s3prl_dphubert.bench import training
from s3prl_dphubert.bench.machine import machine, versions
from s3prl_dphubert.bench.model_shapes import UNITS
from s3prl_dphubert.bench.own_update import OwnUpdate
from s3prl_dphubert.bench.training import STATES, Case, locations, measure, table, write
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError, RunError
from s3prl_dphubert.model import ModelConfig
from s3prl_dphubert.utils.stopwatch import Stopwatch
from tests.helpers.models import tiny


def test_gates_at_the_target_leave_what_the_published_result_keeps():
    open_units = {
        state: {
            kind: sum(float((4 / 3 + values > 0).sum()) for values in rows.values())
            for kind, rows in locations(ModelConfig(), state).items()
        }
        for state in STATES
    }
    assert open_units["start"] == {"conv": 7 * 512, "heads": 12 * 12, "ffn": 12 * 3072}
    assert open_units["target"] == {"conv": 2784, "heads": 40, "ffn": 5363}
    assert sum(UNITS) == 5363


@pytest.mark.slow
def test_measured_updates_are_updates(tmp_path):
    case = Case(batch=1, seconds=0.2, threads=1, repeats=1, config=tiny("hubert").config)
    paths = write(case, tmp_path / "new" / "out")
    assert [path.name for path in paths] == ["training.json", "training.md"]
    report = json.loads(paths[0].read_text(encoding="utf8"))
    names = ["ours, fp32", "ours, fp32, teacher bf16", "ours, bf16"]
    assert {state: list(rows) for state, rows in report["updates"].items()} == dict.fromkeys(STATES, names)
    for row in (row for rows in report["updates"].values() for row in rows.values()):
        (turn,) = row["turns"]
        assert all(turn[part] > 0 for part in training.PARTS)
        assert turn["all"] == pytest.approx(sum(turn[part] for part in training.PARTS))
        assert row["peak_mb"] > 0
    assert report["case"] == {"batch": 1, "seconds": 0.2, "threads": 1, "repeats": 1}
    assert report["versions"] == versions()
    text = paths[1].read_text(encoding="utf8")
    assert text.count("| ours, bf16 |") == 2
    assert "| threads | 1 |" in text
    with pytest.raises(RunError, match=r"training\.json: exists already; choose another --out"):
        write(case, tmp_path / "new" / "out")
    rows = report["updates"]["start"]
    assert "| 1.00 (1.00–1.00) | 1.00 |" in table({"start": {training.PUBLISHED: row, **rows}})


def test_only_known_contestants():
    with pytest.raises(ConfigError, match=r"bench: unknown contestant theirs, allowed: ours, fp32, ours"):
        measure(Case(), names=["theirs"])


def test_command(tmp_path, monkeypatch, capsys):
    called = []
    monkeypatch.setattr(training, "write", lambda case, folder: called.append((case, folder)) or [folder])
    words = ["bench", "--training", "--out", str(tmp_path)]
    assert main(words) == 0
    assert main([*words, "--threads", "1", "--repeats", "7"]) == 0
    assert called == [(Case(), tmp_path), (Case(threads=1, repeats=7), tmp_path)]
    facts = machine()
    processor = (
        f"{facts['processor']}, family {facts['family, model']}, {facts['cores']} cores, {facts['flags']}"
    )
    assert capsys.readouterr().out == f"{processor}\n{tmp_path}\n" * 2
    assert main([*words, "--reference", str(tmp_path)]) == 2
    assert f"reference is {tmp_path}, allowed: a clone" in capsys.readouterr().err


def test_an_update_changes_weights_gates_and_multipliers():
    own = OwnUpdate(tiny("hubert"), "fp32")
    before = {name: tensor.clone() for name, tensor in own.task.module.state_dict().items()}
    for _ in range(2):
        own.update(torch.randn(1, 3200), Stopwatch())
    after = own.task.module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"lagrangian.multipliers", "student.gates.groups.heads.0.log_alpha"} < changed
    assert len(changed) > 60


def test_bad_settings_are_refused_together(tmp_path):
    with pytest.raises(ConfigError, match=r"batch is 0, allowed: 1 or more; .*seconds is 0") as caught:
        Case(batch=0, seconds=0.0, reference=tmp_path)
    assert f"reference is {tmp_path}, allowed: a clone of pyf98/DPHuBERT" in str(caught.value)
    with pytest.raises(ConfigError, match="reference is missing"):
        training.losses(Case())
