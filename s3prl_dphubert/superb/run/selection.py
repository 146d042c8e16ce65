"""Choice of the checkpoint, the hidden state and the learning rate that count, made as SUPERB does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from ...errors import RunError
from ..tasks.spec import HIGHER, SuperbTask
from .experiment import Experiment, best_score, step_of
from .run_files import step_in_name

Key = TypeVar("Key")
ON_DEV, ON_TEST = "on dev", "on the test set, as s3prl's own scripts compare them"


def compared_on(task: SuperbTask) -> str:
    """Name the set on which learning rates are compared."""
    return ON_TEST if task.tries_checkpoints else ON_DEV


def rate(task: SuperbTask, scores: Mapping[float, float]) -> float:
    """Return the best of the learning rates.

    Args:
        task: the task.
        scores: learning rate -> score on the set of :func:`compared_on`.
    """
    better = task.metrics[0].better
    if task.dev_better and not task.tries_checkpoints:
        better = task.dev_better
    return best(scores, better == HIGHER)


def dev_best(task: SuperbTask, experiment: Experiment) -> tuple[Path, str]:
    """Return the checkpoint that was best on the development set, and a note about it.

    s3prl writes it when its score is better than the worst there is; a training that never got so far
    leaves none, and its last checkpoint counts.

    Raises:
        RunError: there is no checkpoint at all.
    """
    last = experiment.last_checkpoint()
    if last is None:
        raise RunError(f"{experiment.folder}: holds no checkpoint")
    best = experiment.folder / task.checkpoint
    if best.exists():
        return best, f"{best.name}, step {step_of(best)}"
    return last, f"{last.name}; s3prl left no {task.checkpoint}, since no score on dev was above the worst"


def saved(task: SuperbTask, experiment: Experiment) -> list[Path]:
    """Return all saved checkpoints of a task that tries them all, oldest first.

    Raises:
        RunError: there is no checkpoint at all.
    """
    if experiment.last_checkpoint() is None:
        raise RunError(f"{experiment.folder}: holds no checkpoint")
    return sorted(experiment.folder.glob(task.checkpoint), key=step_in_name)


def dev_score(experiment: Experiment) -> float:
    """Return the best score of a finished training on the development set.

    Raises:
        CheckpointError: its checkpoint has none.
    """
    return best_score(experiment.folder / f"states-{experiment.steps}.ckpt")


def best(scores: Mapping[Key, float], higher: bool) -> Key:
    """Return the key of the best score; of equal ones the first. NaN is the worst."""
    sign = 1 if higher else -1
    return max(scores, key=lambda key: -math.inf if math.isnan(scores[key]) else sign * scores[key])
