"""The benchmark of training: gates in both states, ours measured in processes of its own."""

from __future__ import annotations

import json

import pytest
import torch
from models import tiny

from s3prl_dphubert.bench import training
from s3prl_dphubert.bench.own import OwnUpdate
from s3prl_dphubert.bench.shapes import UNITS
from s3prl_dphubert.bench.stopwatch import Stopwatch
from s3prl_dphubert.bench.training import Case, locations, measure, table
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model import ModelConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def test_gates_at_the_target_leave_what_the_published_result_keeps():
    open_units = {
        state: {
            kind: sum(float((4 / 3 + values > 0).sum()) for values in rows.values())
            for kind, rows in locations(ModelConfig(), state).items()
        }
        for state in training.STATES
    }
    assert open_units["start"] == {"conv": 7 * 512, "heads": 12 * 12, "ffn": 12 * 3072}
    assert open_units["target"] == {"conv": 2784, "heads": 40, "ffn": 5363}
    assert sum(UNITS) == 5363


def test_measured_updates_are_updates():
    case = Case(batch=1, seconds=0.2, threads=1, repeats=1, config=tiny("hubert").config)
    found = measure(case, ("target",), ("ours, bf16",))
    rows = found["target"]
    assert list(rows) == ["ours, bf16"]
    (turn,) = rows["ours, bf16"]["turns"]
    assert all(turn[part] > 0 for part in training.PARTS)
    assert turn["all"] == pytest.approx(sum(turn[part] for part in training.PARTS))
    assert rows["ours, bf16"]["peak_mb"] > 0
    assert "| ours, bf16 |" in table(found)
    rows = {"start": {training.PUBLISHED: rows["ours, bf16"], **rows}}
    assert "| 1.00 (1.00–1.00) | 1.00 |" in table(json.loads(json.dumps(rows)))


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
    with pytest.raises(ConfigError, match=r"batch is 0, allowed: 1 or more; .*seconds is 0"):
        Case(batch=0, seconds=0.0)
    case = Case(reference=tmp_path)
    with pytest.raises(ConfigError, match=r"no wav2vec2/model\.py"):
        training.losses(case)
