"""Budgets in several counts at once: from the YAML through training to the pruned model and its card."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.compression.pipeline import compress
from s3prl_dphubert.model.cost import expected_widths
from s3prl_dphubert.pruning.budget import Budget, Lagrangian
from s3prl_dphubert.pruning.gates import Gates
from tests.helpers.compression_runs import make_place, read_config
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
