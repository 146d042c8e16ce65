"""Which checkpoint, hidden state or learning rate counts, chosen the way SUPERB does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from ...errors import RunError
from ..metrics.mtwv import score as mtwv
from ..tasks.spec import HIGHER, Task
from .experiment import Experiment, best_score, step_of, step_of_name

Key = TypeVar("Key")
ACCURACY_ON_DEV = ("SD",)
"""Tasks whose metric is an error rate and whose checkpoint is chosen by accuracy."""


ON_DEV, ON_TEST = "on dev", "on the test set, as s3prl's own scripts compare them"


def compared_on(task: Task) -> str:
    """Where learning rates are compared."""
    return ON_TEST if task.many else ON_DEV


def rate(task: Task, scores: Mapping[float, float]) -> float:
    """The best of the learning rates, by what each reached where they are compared."""
    higher = task.metrics[0].better == HIGHER or (task.name in ACCURACY_ON_DEV and not task.many)
    return best(scores, higher)


def dev_best(task: Task, experiment: Experiment) -> tuple[Path, str]:
    """The checkpoint that was best on the development set, and what to call it.

    s3prl writes it when its score is better than the worst there is; a training that never got so far
    leaves none, and its last checkpoint counts.

    Raises:
        RunError: there is no checkpoint at all.
    """
    last = experiment.last()
    if last is None:
        raise RunError(f"{experiment.folder}: holds no checkpoint")
    best = experiment.folder / task.best
    if best.exists():
        return best, f"{best.name}, step {step_of(best)}"
    return last, f"{last.name}; s3prl left no {task.best}, since no score on dev was above the worst"


def saved(task: Task, experiment: Experiment) -> list[Path]:
    """The checkpoints of a task that is chosen among all that were saved, oldest first."""
    if experiment.last() is None:
        raise RunError(f"{experiment.folder}: holds no checkpoint")
    return sorted(experiment.folder.glob(task.best), key=step_of_name)


def dev_score(experiment: Experiment) -> float:
    """The best score of a finished training on the development set.

    Raises:
        CheckpointError: its checkpoint has none.
    """
    return best_score(experiment.folder / f"states-{experiment.steps}.ckpt")


def detection(folder: Path, truth: Path) -> float:
    """MTWV of a search, times 100."""
    return 100 * mtwv(folder / "benchmark.stdlist.xml", truth).mtwv


def best(scores: Mapping[Key, float], higher: bool) -> Key:
    """The key of the best score; of several, the first. What is no number is worst."""
    sign = 1 if higher else -1
    return max(scores, key=lambda key: -math.inf if math.isnan(scores[key]) else sign * scores[key])
