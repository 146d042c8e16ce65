"""What each stage trains, made alike for every loop that trains it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batches import Batch
from ..distillation.objective import Objective
from ..distillation.task import Distillation
from ..errors import ConfigError
from ..model import SpeechModel
from ..pruning.budget import Budget
from ..pruning.gated_model import Student
from ..training.train_config import TrainConfig
from .compress_config import CompressConfig


def first(
    config: CompressConfig,
    teacher: SpeechModel,
    model: SpeechModel,
    settings: TrainConfig,
    valid: list[Batch] | None = None,
) -> Distillation:
    """Stage 1: the model under gates that start from the run's seed.

    Args:
        config: the run.
        teacher: on the device that trains.
        model: what the student starts from; taken over, not copied.
        settings: peak learning rates.
        valid: validation batches.

    Raises:
        ConfigError: the student keeps the budget before anything is pruned.
        RunError: no choice of the gated units keeps the budget.
    """
    torch.manual_seed(config.seed)
    student = Student(model.requires_grad_(True), config.gates)
    student.model.feature_extractor.dummy_weight.requires_grad_(False)
    task = _distillation(config, teacher, student, settings, config.budget, valid)
    _check_room(task, config.budget)
    return task


def second(
    config: CompressConfig,
    teacher: SpeechModel,
    model: SpeechModel,
    settings: TrainConfig,
    projections: dict[str, Tensor] | None = None,
    valid: list[Batch] | None = None,
) -> Distillation:
    """Stage 2: a model of fixed shape, with the projections of stage 1 if there are any."""
    torch.manual_seed(config.seed)
    task = _distillation(config, teacher, model, settings, None, valid)
    if projections is not None:
        task.objective.load_state_dict(projections)
    return task


def _distillation(
    config: CompressConfig,
    teacher: SpeechModel,
    student: Student | SpeechModel,
    settings: TrainConfig,
    budget: Budget | None,
    valid: list[Batch] | None,
) -> Distillation:
    device = next(teacher.parameters()).device
    shape = (student.model if isinstance(student, Student) else student).config
    wide = teacher.config
    objective = Objective(
        config.objective, shape.embed_dim, wide.embed_dim, shape.num_layers, wide.num_layers
    )
    rates = settings.lr, settings.gate_lr
    low = settings.teacher_precision
    return Distillation(teacher, student.to(device), objective.to(device), *rates, budget, valid, low)


def _check_room(task: Distillation, budget: Budget) -> None:
    """Refuse a student that is within the budget before it is pruned."""
    costs, limits = budget.costs(task.model.config), budget.limits(task.full_costs)
    if all(costs[count] <= limit for count, limit in limits.items()):
        known = ", ".join(f"{costs[count]:,} {count} of {limit:,.0f}" for count, limit in limits.items())
        raise ConfigError(f"budget: the student costs {known} before pruning, allowed: more than the budget")
