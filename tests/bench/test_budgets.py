"""Comparison of runs under different budgets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from s3prl_dphubert import compress, load_model
from s3prl_dphubert.bench import budgets
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model.cost import macs, parameters
from s3prl_dphubert.pruning.budget import Budget
from tests.helpers.compression_runs import make_place, read_config


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("budgets"))


@pytest.fixture(scope="module")
def runs(place):
    """A run under one budget, and one under two."""
    config, folders = read_config(place), {}
    for name, sparsity in (("one", 0.3), ("two", {"parameters": 0.3, "macs": 0.5})):
        budget = Budget(sparsity, warmup=2, seconds=1.0, tolerance=1.0)
        stage = replace(config.stage1, updates=3, warmup=1)
        compress(replace(config, budget=budget, stage1=stage, stage2=None), place / name)
        folders[name] = place / name
    return folders


def test_cost_and_loss_are_those_of_the_runs(place, runs):
    rows = budgets.measure(runs, seconds=1.0, repeats=1)["rows"]
    assert list(rows) == ["teacher", "one", "two"]
    for name, row in rows.items():
        config = load_model(place / "teacher" if name == "teacher" else place / name / "model").config
        assert row["parameters"] == parameters(config)
        assert row["macs"] == macs(config, 16_000)
        assert set(row["speed"]) == {"fp32", "bf16"}
        assert all(factor > 0 for factor in row["speed"].values())
    assert rows["two"]["macs"] <= 0.5 * rows["teacher"]["macs"] < rows["one"]["macs"]
    valid = json.loads((runs["one"] / "results.json").read_text())["valid"]
    assert rows["one"]["valid"]["pruned"] == valid["pruned"]["loss"]
    assert rows["one"]["budget"] == "sparsity 0.3 in parameters"


def test_groups_are_kept_and_the_page_is_made_from_them(tmp_path, runs):
    page = tmp_path / "page.md"
    page.write_text(f"# Head\n\n{budgets.BEGIN}\n{budgets.END}\nTail\n")
    for group in ("first", "second"):
        budgets.main([str(page), group, *(f"{name}={run}" for name, run in runs.items())])
    text = page.read_text()
    assert text.index("### first") < text.index("### second") < text.index("Tail")
    assert text.count("| two (sparsity 0.3 in parameters, 0.5 in macs) | ") == 2
    page.write_text(f"# Head\n\n{budgets.BEGIN}\n{budgets.END}\nTail\n")
    budgets.main([str(page)])
    assert page.read_text() == text


def test_other_teachers_and_unfinished_runs_are_refused(tmp_path, place, runs):
    (tmp_path / "config.yaml").write_text("teacher: x\n")
    with pytest.raises(ConfigError, match="is not a finished run"):
        budgets.measure({**runs, "more": tmp_path})
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match=r"runs are of .*, x, allowed: one teacher"):
        budgets.measure({**runs, "more": tmp_path})
