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
FINALISTS = 2  # learning rates that are trained to the end after a short training of all


def rates(task: SuperbTask, scores: Mapping[float, float], count: int = 1) -> list[float]:
    """Return the best learning rates, the best first.

    Args:
        task: the task.
        scores: learning rate -> score on the development set.
        count: how many to return.
    """
    left = dict(scores)
    chosen: list[float] = []
    while left and len(chosen) < count:
        chosen.append(best(left, (task.dev_better or task.metrics[0].better) == HIGHER))
        del left[chosen[-1]]
    return chosen


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
    """Return the saved checkpoints that a task tries, oldest first.

    Raises:
        RunError: there is no checkpoint at all.
    """
    if experiment.last_checkpoint() is None:
        raise RunError(f"{experiment.folder}: holds no checkpoint")
    checkpoints = sorted(experiment.folder.glob(task.checkpoint), key=step_in_name)
    tried = [path for path in checkpoints if step_in_name(path) * task.tried % experiment.steps == 0]
    return tried or checkpoints


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
