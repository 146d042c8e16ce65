"""The task that both stages train: a student follows its teacher, in stage 1 under gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..model import SpeechModel
from ..model.inference.folded import FoldedModel, fold
from ..model.masks import NO_MASKS, Masks
from ..model.precision import AUTOCAST, autocast
from ..model.sparse.sparse_forward import lean_features
from ..pruning.allocation import check_reachable
from ..pruning.budget import Budget, Lagrangian
from ..pruning.gated_model import Student
from ..pruning.structured import final_masks
from .objective import Objective
from .target_cache import TargetCache

NAMES = {torch.float32: "fp32", **{dtype: name for name, dtype in AUTOCAST.items()}}


class Distillation:
    """Joint distillation and pruning of a :class:`Student`, or distillation of a pruned model.

    Args:
        teacher: kept in eval mode and without gradient.
        student: with gates (stage 1) or a plain model (stage 2).
        objective: what is matched.
        lr: peak learning rate of weights and projections.
        gate_lr: peak learning rate of gates and multipliers (stage 1).
        budget: what the student may cost, as a share of the teacher (stage 1).
        valid: validation batches.
        teacher_precision: ``fp32``, ``bf16`` or ``fp16`` for the teacher; by default as trained.

    Raises:
        RunError: no choice of the gated units keeps the budget.
    """

    def __init__(
        self,
        teacher: SpeechModel,
        student: Student | SpeechModel,
        objective: Objective,
        lr: float,
        gate_lr: float = 0.02,
        budget: Budget | None = None,
        valid: list[Batch] | None = None,
        teacher_precision: str | None = None,
    ) -> None:
        self.teacher_precision = teacher_precision
        self._folded: dict[str, FoldedModel] = {}
        self.cache: TargetCache | None = None
        self.teacher = teacher.eval().requires_grad_(False)
        self.student, self.objective = student, objective
        self.lr, self.gate_lr, self.budget = lr, gate_lr, budget
        self.valid = valid or []
        self.lagrangian = None if budget is None else Lagrangian(budget.shares)
        self.full_costs = {} if budget is None else budget.costs(teacher.config)
        if budget is not None and isinstance(student, Student):
            check_reachable(self.model.config, student.gates, budget, budget.limits(self.full_costs))
        begin = {} if budget is None else budget.costs(self.model.config)
        self.begin = {count: 1 - cost / self.full_costs[count] for count, cost in begin.items()}
        parts: dict[str, nn.Module] = {"student": student, "objective": objective}
        if self.lagrangian is not None:
            parts["lagrangian"] = self.lagrangian
        self.module: nn.Module = nn.ModuleDict(parts).to(next(teacher.parameters()).device)

    @property
    def model(self) -> SpeechModel:
        """The student's model without gates."""
        return self.student.model if isinstance(self.student, Student) else self.student

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights and projections; in stage 1 also gates, and multipliers that ascend."""
        weights = [p for p in self.model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [*weights, *self.objective.parameters()], "base_lr": self.lr, "name": "weights"}
        ]
        if isinstance(self.student, Student) and self.lagrangian is not None:
            gates = {
                "params": list(self.student.gates.parameters()),
                "base_lr": self.gate_lr,
                "name": "gates",
            }
            multipliers = {"params": list(self.lagrangian.parameters()), "base_lr": self.gate_lr}
            groups += [gates, {**multipliers, "maximize": True, "name": "multipliers"}]
        return groups

    def step(self, batch: Batch, update: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Distillation loss, plus in stage 1 the penalty for missing the target sparsity."""
        targets = self.kept_targets(batch)
        gates = self.student.gates if isinstance(self.student, Student) else None
        masks = NO_MASKS if gates is None else gates.sample(generator)
        if batch.waveforms.device.type == "cpu":
            hidden = lean_features(self.model, batch.waveforms, masks)
        else:
            hidden, _ = self.model.extract_features(batch.waveforms, masks=masks)
        loss, terms = self.objective(hidden, targets)
        scalars: dict[str, Any] = {name: value.detach() for name, value in terms.items()}
        scalars["distillation"] = loss.detach()
        if self.budget is not None and self.lagrangian is not None:
            sparsity, wanted = self.sparsity(), self.budget.targets(update, self.begin)
            loss = loss + self.lagrangian(sparsity, wanted).to(loss.device)
            for count, target in wanted.items():
                suffix = f"_{count}" if len(wanted) > 1 else ""
                scalars[f"sparsity{suffix}"] = sparsity[count].detach()
                scalars[f"target_sparsity{suffix}"] = target
        return loss, scalars

    def kept_targets(self, batch: Batch) -> Mapping[int, Tensor] | list[Tensor]:
        """Targets by layer, from the cache where there is one and it has them, each (B, F, D)."""
        waveforms = batch.waveforms
        if self.cache is None or not batch.keys:
            return self.targets(waveforms)
        precision = self._precision(waveforms.device.type)
        with torch.no_grad():
            found = self.cache.get(batch.keys, precision, lambda: self.targets(waveforms))
        return {layer: states.to(waveforms.device) for layer, states in found.items()}

    def _precision(self, device: str) -> str:
        """What the teacher computes in."""
        active = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if active else torch.float32
        return self.teacher_precision or NAMES[dtype]

    @torch.no_grad()
    def targets(self, waveforms: Tensor) -> list[Tensor]:
        """The teacher's hidden states of waveforms (B, T), no deeper than they are needed, each (B, F, D)."""
        depth, device = self.objective.depth, waveforms.device
        precision = self._precision(device.type)
        if device.type != "cpu":
            with autocast(device, precision):
                return self.teacher.extract_features(waveforms, num_layers=depth)[0]
        if precision not in self._folded:
            self._folded[precision] = fold(self.teacher, precision)
        return self._folded[precision].extract_features(waveforms, num_layers=depth)[0]

    def sparsity(self) -> dict[str, Tensor]:
        """Count -> expected share of the full cost that the gates remove, 0-d and differentiable."""
        if not isinstance(self.student, Student) or self.budget is None:
            raise TypeError("sparsity needs a gated student and a budget")
        costs = self.student.expected_costs(self.budget)
        return {count: 1 - cost / float(self.full_costs[count]) for count, cost in costs.items()}

    def final_masks(self) -> Masks:
        """The masks by which the gated student would be cut now, within the budget.

        Raises:
            RunError: no choice of the gated units keeps the budget.
        """
        if not isinstance(self.student, Student):
            raise TypeError("masks need a gated student")
        return final_masks(self.student, self.budget, self.full_costs)

    def validate(self) -> dict[str, float]:
        """Mean distillation loss over the validation batches under the deterministic masks."""
        return self.evaluate(self.student.gates.masks() if isinstance(self.student, Student) else NO_MASKS)

    @torch.no_grad()
    def evaluate(self, masks: Masks = NO_MASKS) -> dict[str, float]:
        """Mean loss terms over the validation batches; empty if there are none."""
        if not self.valid:
            return {}
        was_training = self.module.training
        self.module.eval()
        totals: dict[str, float] = {}
        device = next(self.teacher.parameters()).device
        for batch in self.valid:
            waveforms = batch.waveforms.to(device)
            targets = self.targets(waveforms)
            loss, terms = self.objective(self.model.extract_features(waveforms, masks=masks)[0], targets)
            for name, value in {"loss": loss, **terms}.items():
                totals[name] = totals.get(name, 0.0) + float(value) / len(self.valid)
        self.module.train(was_training)
        return totals
