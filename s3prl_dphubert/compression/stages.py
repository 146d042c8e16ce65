"""Training tasks of a run's two stages, built alike for every loop that trains them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.batches import Batch
from ..distillation.objective import Objective
from ..distillation.task import Distillation, JointPruning
from ..errors import ConfigError
from ..model import ModelConfig, SpeechModel
from ..model.cost import Number
from ..pruning.budget import Budget
from ..pruning.gated_model import GatedModel
from ..training.train_config import TrainConfig
from .compress_config import CompressConfig


def joint_pruning(
    config: CompressConfig, teacher: SpeechModel, student: SpeechModel, valid: Sequence[Batch] = ()
) -> JointPruning:
    """Build stage 1: the student under gates that start from the run's seed.

    Args:
        config: the run.
        teacher: model on the device that trains.
        student: initial model, taken over without a copy.
        valid: validation batches.

    Raises:
        ConfigError: the student keeps the budget before anything is pruned.
        RunError: no choice of the gated units keeps the budget.
    """
    torch.manual_seed(config.seed)
    gated = GatedModel(student.requires_grad_(True), config.gates)
    student.feature_extractor.dummy_weight.requires_grad_(False)
    objective = _objective(config, student.config, teacher.config)
    train = config.stage1 or TrainConfig()
    task = JointPruning(teacher, gated, objective, train, config.budget, valid)
    _check_exceeds(task.budget, student.config, task.full_costs)
    return task


def distillation(
    config: CompressConfig,
    teacher: SpeechModel,
    student: SpeechModel,
    projections: dict[str, Tensor] | None = None,
    valid: Sequence[Batch] = (),
) -> Distillation:
    """Build stage 2: a student of fixed shape, with the projections of stage 1 if there are any."""
    torch.manual_seed(config.seed)
    objective = _objective(config, student.config, teacher.config)
    task = Distillation(teacher, student, objective, config.stage2 or TrainConfig(), valid)
    if projections is not None:
        objective.load_state_dict(projections)
    return task


def _objective(config: CompressConfig, student: ModelConfig, teacher: ModelConfig) -> Objective:
    widths, depths = (student.embed_dim, teacher.embed_dim), (student.num_layers, teacher.num_layers)
    return Objective(config.objective, *widths, *depths)


def _check_exceeds(budget: Budget, student: ModelConfig, full_costs: dict[str, Number]) -> None:
    """Refuse a student that is within the budget before it is pruned."""
    costs, limits = budget.costs(student), budget.limits(full_costs)
    if all(costs[count] <= limit for count, limit in limits.items()):
        shown = ", ".join(f"{costs[count]:,} {count} of {limit:,.0f}" for count, limit in limits.items())
        raise ConfigError(f"budget: the student costs {shown} before pruning, allowed: more than the budget")
