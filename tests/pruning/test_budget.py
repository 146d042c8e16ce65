"""Budgets in several counts at once: from the YAML through training to the pruned model and its card."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.compression.pipeline import compress
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model import ModelConfig
from s3prl_dphubert.model.cost import expected_widths
from s3prl_dphubert.pruning.budget import Budget, Lagrangian, read_amount
from s3prl_dphubert.pruning.gates import Gates
from s3prl_dphubert.utils.config_io import from_dict, to_dict
from tests.helpers.compression_runs import STAGE, make_place, read_config
from tests.helpers.models import tiny

SHARES = {"parameters": 0.3, "macs": 0.35, "superb_macs": 0.4}


def test_a_run_keeps_three_budgets(tmp_path, capfd):
    place = make_place(tmp_path)
    budget = Budget(SHARES, warmup=4, seconds=1.0, tolerance=1.0)
    config = replace(read_config(place), budget=budget)
    compress(config, tmp_path / "run")
    shown = capfd.readouterr().err
    limits = budget.limits(budget.costs(load_model(place / "teacher").config))
    small = load_model(tmp_path / "run" / "model").config
    used = {count: cost / limits[count] for count, cost in budget.costs(small).items()}
    assert list(used) == list(SHARES)
    assert 0.97 < max(used.values()) <= 1
    rows = [json.loads(row) for row in (tmp_path / "run" / "stage1" / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    for count, share in SHARES.items():
        assert [row[f"target_sparsity_{count}"] for row in rows[:3]] == pytest.approx(
            [0, share / 4, share / 2]
        )
        assert rows[-1][f"target_sparsity_{count}"] == share
        assert 0 < rows[-1][f"sparsity_{count}"] < 1
        assert f"sparsity_{count} 0." in shown  # the progress
    assert "sparsity" not in rows[0]
    assert (tmp_path / "run" / "training.png").read_bytes().startswith(b"\x89PNG")
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "sparsity 0.3 in parameters, 0.35 in macs, 0.4 in superb_macs" in card


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "binding"),
    [({"parameters": 0.6, "macs": 0.2}, "parameters"), ({"parameters": 0.2, "macs": 0.6}, "macs")],
)
def test_gates_settle_where_the_tighter_budget_wants_them(shares, binding):
    """The penalty alone, against units that all would rather stay open."""
    config, budget = tiny("hubert").config, Budget(shares, warmup=100, seconds=1.0)
    torch.manual_seed(0)
    gates, lagrangian, full = Gates(config), Lagrangian(budget.shares), budget.costs(config)
    multipliers = {"params": lagrangian.parameters(), "maximize": True}
    optimizer = torch.optim.AdamW([{"params": gates.parameters()}, multipliers], lr=0.05, weight_decay=0.0)
    for update in range(900):
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.05 * (1 - update / 900)
        costs = budget.costs(config, expected_widths(config, gates.expected()), training=True)
        sparsity = {count: 1 - cost / full[count] for count, cost in costs.items()}
        stay = sum(gate.open_probability().mean() for _, _, gate in gates.items())
        optimizer.zero_grad()
        (lagrangian(sparsity, budget.targets(update)) - 0.01 * stay).backward()
        optimizer.step()
    reached = {count: value.item() for count, value in sparsity.items()}
    assert reached[binding] == pytest.approx(shares[binding], abs=0.01)
    assert all(reached[count] > share - 0.01 for count, share in shares.items())


def test_amounts_are_read_from_numbers_and_texts():
    for value, amount in (("24M", 24e6), ("8 G", 8e9), ("1.5k", 1500), (24_000_000, 24e6), (".5", 0.5)):
        assert Budget(parameters=value).amounts == {"parameters": amount}
    assert Budget(parameters="24M").shares == {}  # nothing else was asked for
    assert Budget().shares == {"parameters": 0.75}
    both = Budget({"parameters": 0.5, "macs": 0.3}, parameters="24M")
    assert (both.shares, both.amounts, both.counts) == (
        {"macs": 0.3},
        {"parameters": 24e6},
        ("parameters", "macs"),
    )
    assert str(both) == "sparsity 0.3 in macs; at most 24M parameters"
    for budget in (both, Budget(macs="8G"), Budget(0.75, macs="8G")):
        assert from_dict(Budget, to_dict(budget)) == budget
    with pytest.raises(ConfigError) as caught:
        Budget(parameters="24X", macs=-1, latency=True, curve="square", constraint="hard")
    for part in (
        "parameters is '24X', allowed: a number above 0, or a text such as 24M",
        "macs is -1, allowed: a number above 0",
        "latency is True, allowed",
        "table is missing",
        "curve is 'square', allowed: linear, cubic, cosine",
        "constraint is 'hard', allowed: penalty, projection",
    ):
        assert part in str(caught.value)


def test_amounts_become_shares_of_the_teacher():
    budget = Budget(parameters="24M", macs="2G", seconds=1.0)
    full = budget.costs(ModelConfig())
    relative = budget.relative_to(full)
    assert relative.shares == pytest.approx(
        {"parameters": 1 - 24e6 / 94_371_456, "macs": 1 - 2e9 / full["macs"]}
    )
    assert relative.amounts == {}
    assert relative.relative_to(full) == relative
    assert budget.limits(full) == pytest.approx({"parameters": 24e6, "macs": 2e9})
    with pytest.raises(
        ConfigError, match="parameters is 95,000,000, allowed: less than the teacher's 94,371,456"
    ):
        Budget(parameters="95M").relative_to(Budget(parameters="95M").costs(ModelConfig()))


def test_curves_of_the_target():
    for curve, quarter, middle in (
        ("linear", 0.25, 0.5),
        ("cubic", 1 - 0.75**3, 0.875),
        ("cosine", 0.146447, 0.5),
    ):
        budget = Budget(0.8, warmup=100, curve=curve)
        rise = [budget.targets(update)["parameters"] for update in (0, 25, 50, 100, 1000)]
        assert rise == pytest.approx([0, 0.8 * quarter, 0.8 * middle, 0.8, 0.8], abs=1e-6)
        assert budget.targets(50, {"parameters": 0.4})["parameters"] == pytest.approx(0.4 + 0.4 * middle)


@pytest.mark.slow
@pytest.mark.parametrize("amounts", [{"parameters": "16k"}, {"macs": 620_000, "parameters": 17e3}])
def test_a_run_keeps_amounts(tmp_path, amounts):
    """From the forms that YAML has, with gates that end on the target."""
    place = make_place(tmp_path)
    stage1 = STAGE | {"updates": 40, "gate_lr": 0.3, "accumulate": 1}
    budget = amounts | {"warmup": 10, "seconds": 1.0, "constraint": "projection", "curve": "cubic"}
    config = CompressConfig.create(read_config(place), budget=budget | {"sparsity": {}}, stage1=stage1)
    small = compress(config, tmp_path / "run")
    limits = {count: read_amount(amount) for count, amount in amounts.items()}
    used = {count: cost / limits[count] for count, cost in Budget(**budget).costs(small.config).items()}
    assert 0.97 < max(used.values()) <= 1
    last = [json.loads(row) for row in (tmp_path / "run" / "stage1" / "log.jsonl").read_text().splitlines()][
        -1
    ]
    suffixes = [f"_{count}" for count in amounts] if len(amounts) > 1 else [""]
    off = [last[f"sparsity{suffix}"] - last[f"target_sparsity{suffix}"] for suffix in suffixes]
    assert abs(min(off)) < 0.005
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"at most {'16k' if len(amounts) == 1 else '17k'} parameters" in card
