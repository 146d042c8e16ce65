"""Budgets in time: a measured table, its sum, and models that keep it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.bench import units
from s3prl_dphubert.bench.units import Settings, fit, measure
from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model.cost import expected_widths, mac_parts, real_widths
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.latency import LatencyLine, LatencyTable, latency, shape_of
from s3prl_dphubert.pruning.structured import prune
from tests.helpers.models import gated, tiny


def table_of(config, **changes):
    """Conv channels ten times as dear as anything else."""
    layers = config.num_layers
    values = {
        "seconds": 1.0,
        "shape": shape_of(config),
        "conv": (LatencyLine(0.0, 10.0), *(LatencyLine(5.0, 1.0) for _ in config.conv_channels[1:])),
        "projection": LatencyLine(1.0, 2.0),
        "positions": 7.0,
        "rest": (3.0,) * layers,
        "attention": (LatencyLine(2.0, 11.0),) * layers,
        "feed_forward": (LatencyLine(4.0, 0.5),) * layers,
        "machine": {"device": "a test"},
    }
    return LatencyTable(**values | changes)


@pytest.fixture
def table(tmp_path):
    table_of(tiny("hubert").config).write(tmp_path / "table.json")
    return str(tmp_path / "table.json")


def test_the_sum_is_that_of_the_parts(table):
    config = tiny("hubert").config  # conv 12 seven times, 4 heads and 24 units in each of 3 layers
    read = LatencyTable.read(table)
    assert read == table_of(config)
    expected = 7 + 10 * 12 + 6 * (5 + 144) + (1 + 24) + 3 * (3 + (2 + 44) + (4 + 12))
    assert latency(config, read) == expected
    cut = replace(config, heads=((0,), (), None), ffn=(8, 0, None), conv_channels=(6,) * 7)
    expected = 7 + 60 + 6 * (5 + 36) + (1 + 12) + 9 + (2 + 11) + (4 + 4)  # what is empty adds a bias
    assert latency(cut, read) == expected


def test_the_expected_sum_is_differentiable(table):
    student = gated(tiny("hubert"))
    budget = Budget({"latency": 0.4}, table=table)
    cost = student.expected_costs(budget)["latency"]
    assert 0 < float(cost.detach()) < latency(student.model.config, LatencyTable.read(table))
    cost.backward()
    for kind, index, gates in student.gates.items():
        assert (gates.log_alpha.grad > 0).all(), (kind, index)
    wide = expected_widths(student.model.config, {})
    assert latency(student.model.config, LatencyTable.read(table), wide) == latency(
        student.model.config, LatencyTable.read(table), real_widths(student.model.config)
    )


@pytest.mark.parametrize("others", [{}, {"parameters": 0.3}])
def test_pruned_models_keep_it(table, others):
    student = gated(tiny("hubert"))
    budget = Budget({"latency": 0.5, **others}, table=table)
    full = budget.costs(student.model.config)
    pruned = prune(student, budget, full)
    used = {count: cost / budget.limits(full)[count] for count, cost in budget.costs(pruned.config).items()}
    assert list(used) == [*others, "latency"]
    assert 0.9 < max(used.values()) <= 1
    macs = mac_parts(pruned.config, 16_000)
    assert macs["conv 2"] < 0.5 * mac_parts(student.model.config, 16_000)["conv 2"]


def test_a_table_is_asked_for_and_has_to_fit(table, tmp_path):
    with pytest.raises(ConfigError, match="table is missing, allowed with latency"):
        Budget({"latency": 0.5})
    wavlm = tiny("wavlm").config
    with pytest.raises(ConfigError, match="table is for num_buckets 0, the model has 32"):
        Budget({"latency": 0.5}, table=table).costs(wavlm)
    values = json.loads((tmp_path / "table.json").read_text())
    for name, change in {
        "negative": values | {"positions": -1.0},
        "nan": values | {"positions": float("nan")},
        "field": {k: v for k, v in values.items() if k != "conv"},
        "list": [],
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(change))
        with pytest.raises(ConfigError, match="is no table of `bench --table`"):
            LatencyTable.read(tmp_path / f"{name}.json")
    with pytest.raises(ConfigError, match=r"gone\.json is no table"):
        LatencyTable.read(tmp_path / "gone.json")


@pytest.mark.parametrize("shape", ["hubert", "large", "wavlm", "data2vec"])
def test_measured_tables_fit_their_model(shape, tmp_path):
    config = tiny(shape).config
    measured = measure(config, Settings(seconds=0.5, repeats=1))
    measured.write(tmp_path / "table.json")
    read = LatencyTable.read(tmp_path / "table.json")
    assert read == measured
    assert latency(config, read) > latency(replace(config, heads=(None,) * 3), read) > 0
    assert read.seconds == 0.5
    assert len(read.conv) == 7
    assert torch.get_num_threads() == 1


def test_the_command_measures_the_teacher_of_the_run(tmp_path, monkeypatch):
    for name, value in (("seconds", 0.5), ("repeats", 1)):
        monkeypatch.setattr(units.Settings, name, value)
    source, path = save_model(tiny("wavlm"), tmp_path / "model"), tmp_path / "table.json"
    assert main(["bench", "--table", str(path), "--model", str(source), "--threads", "1"]) == 0
    config = tiny("wavlm").config
    assert LatencyTable.read(path).shape == shape_of(config)
    Budget({"latency": 0.5}, table=str(path)).costs(config)


def test_lines_are_fitted_without_negative_parts():
    line = fit([1, 2, 3, 4], [5.0, 7.0, 9.0, 11.0])
    assert (line.fixed, line.each) == pytest.approx((3, 2))
    assert fit([1, 2, 4], [1.0, 3.0, 7.0]).fixed == 0
    assert fit([1, 2, 4], [3.0, 2.0, 1.0]) == LatencyLine(2.0, 0.0)
    with pytest.raises(ConfigError, match=r"seconds is 0, allowed: 0\.1 or more; repeats is 0"):
        Settings(seconds=0, repeats=0)
    with pytest.raises(ConfigError, match="the model is pruned"):
        measure(replace(tiny("hubert").config, ffn=(24, 24, 8)), Settings())
    assert units.SHARES[-1] == 1


def test_models_with_adapters_are_refused():
    config = tiny("mms").config
    with pytest.raises(ConfigError, match=r"adapter_dim is 6, allowed: 0, as tables time no adapters"):
        table_of(config).check(config)
    table_of(config).check(replace(config, adapter_dim=0))
