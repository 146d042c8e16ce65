"""Gates that are moved to their target together."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.pruning.budget import Budget, Lagrangian
from s3prl_dphubert.pruning.budget_steps import SteppedBudget
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.pruning.gates import GateConfig
from s3prl_dphubert.training.optimizer import ScheduledAdamW, linear_schedule
from tests.helpers.models import gated, tiny

SHARES = {"parameters": 0.5, "macs": 0.45}


def gaps(student, budget, full):
    sparsity = student.expected_sparsity(budget, full)
    return {count: (value - budget.shares[count]).detach() for count, value in sparsity.items()}


def tightest(student, budget, full):
    return float(min(gaps(student, budget, full).values()))


@pytest.mark.parametrize("shift", [-3.0, -0.3, 0.3, 3.0])
def test_projection_reaches_the_tighter_target_and_keeps_the_order(shift):
    student, budget = gated(tiny("hubert")), Budget(SHARES, seconds=1.0)
    full = budget.costs(student.model.config)
    for _ in range(30):
        student.project(budget, full, gaps(student, budget, full), -10.0, 10.0)
    assert tightest(student, budget, full) == pytest.approx(0, abs=1e-5)
    before = {(kind, layer): gate.log_alpha.detach().clone() for kind, layer, gate in student.gates.items()}
    student.gates.shift(torch.tensor(shift))
    assert abs(tightest(student, budget, full)) > 0.01
    for _ in range(30):
        student.project(budget, full, gaps(student, budget, full), -0.5, 0.5)
    assert tightest(student, budget, full) == pytest.approx(0, abs=1e-5)
    for kind, layer, gate in student.gates.items():
        torch.testing.assert_close(gate.log_alpha.detach(), before[kind, layer], atol=1e-3, rtol=0)


def test_one_projection_moves_gates_by_the_limit_at_most():
    student, budget = gated(tiny("hubert")), Budget(0.9)
    full = budget.costs(student.model.config)
    before = [gate.log_alpha.detach().clone() for _, _, gate in student.gates.items()]
    student.project(budget, full, gaps(student, budget, full), -0.02, 0.0)
    for old, (_, _, gate) in zip(before, student.gates.items(), strict=True):
        torch.testing.assert_close(gate.log_alpha.detach(), old - 0.02)
        assert gate.log_alpha.requires_grad


@pytest.mark.parametrize("location", [-500.0, 500.0])
def test_gates_that_no_amount_moves_stay_finite(location):
    student, budget = GatedModel(tiny("hubert"), GateConfig()), Budget(0.5)
    full = budget.costs(student.model.config)
    for _, _, gate in student.gates.items():
        gate.log_alpha.data[:] = location
    student.project(budget, full, gaps(student, budget, full), -0.1, 0.1)
    assert all(bool(gate.log_alpha.isfinite().all()) for _, _, gate in student.gates.items())
    student.project(budget, full, {"parameters": torch.tensor(0.0)}, -0.1, 0.1)
    assert all(bool(gate.log_alpha.isfinite().all()) for _, _, gate in student.gates.items())


def pulled(constraint: str, worth: float, updates: int = 150) -> float:
    """Distance to the target after a stage 1 in which units are worth something, with noise."""
    torch.manual_seed(0)
    student, budget = GatedModel(tiny("hubert")), Budget(0.5, warmup=40, constraint=constraint)
    full, lagrangian = budget.costs(student.model.config), Lagrangian(budget.shares)
    gates = {"params": list(student.gates.parameters()), "base_lr": 0.1}
    multipliers = {"params": list(lagrangian.parameters()), "base_lr": 0.1, "maximize": True}
    optimizer = ScheduledAdamW([gates, multipliers], 20, updates)
    worths = [torch.randn(len(gate.log_alpha)).exp() for _, _, gate in student.gates.items()]
    for update in range(updates):
        optimizer.schedule(update)
        optimizer.zero_grad()
        sparsity, targets = student.expected_sparsity(budget, full), budget.targets(update)
        loss = lagrangian(sparsity, targets)
        for value, (_, _, gate) in zip(worths, student.gates.items(), strict=True):
            gradient = worth * (value + torch.randn(len(value)))
            loss = loss - (gate.open_probability() * gradient).sum()
        loss.backward()
        optimizer.dense_gradients()
        optimizer.step()
        gap = {count: (sparsity[count] - targets[count]).detach() for count in targets}
        may_open, may_close = budget.may_move(update, updates)
        limit = 2 * linear_schedule(update, 0.1, 20, updates)
        if may_open or may_close:
            student.project(budget, full, gap, -limit * may_close, limit * may_open)
    return tightest(student, budget, full)


@pytest.mark.slow
@pytest.mark.parametrize("worth", [1e-4, 1e-3, 1e-2])
def test_gates_end_on_the_target_whatever_units_are_worth(worth):
    """The penalty alone ends beyond it here, the further the less units are worth."""
    assert abs(pulled("projection", worth)) < 0.002
    assert abs(pulled("penalty", worth)) > 0.05


def test_projection_waits_for_the_penalty():
    """Gates are opened after the warm-up and closed in the second half, of each size on its own."""
    budget = Budget(0.5, warmup=30, constraint="projection")
    moves = [budget.may_move(update, 100) for update in (0, 29, 30, 49, 50, 99)]
    assert moves == [(False, False)] * 2 + [(True, False)] * 2 + [(True, True)] * 2
    assert Budget(0.5, warmup=30).may_move(99, 100) == (False, False)
    steps = SteppedBudget.of([Budget(share, warmup=30) for share in (0.2, 0.5, 0.8)], 120)
    opened, closed = zip(*(steps.may_move(update, 120) for update in range(120)), strict=True)
    assert [update for update in range(120) if not opened[update]] == [
        *range(10),
        *range(40, 50),
        *range(80, 90),
    ]
    assert [update for update in range(120) if not closed[update]] == [
        *range(20),
        *range(40, 60),
        *range(80, 100),
    ]
