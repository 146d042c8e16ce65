"""The SUPERB score: points of a metric, a task and a model, and the rank of a model.

Of a metric: 1000 (x - FBANK) / (SOTA - FBANK), not clipped. Of a task: the mean over its metrics.
The score is the mean over the ten tasks (SUPERB challenge, 2110.08583, section 3; the
leaderboard rounds it). A rank is, per metric, how many of the models shown are strictly worse (0
when missing), averaged inside a task and then over the tasks; it depends on the models shown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..tasks import core_tasks
from ..tasks.spec import Metric, SuperbTask

Metrics = Mapping[str, Mapping[str, float]]
"""Task name -> metric name -> value in the unit of the leaderboard."""


def scored(task: SuperbTask) -> tuple[Metric, ...]:
    """Return the metrics of a task that give points."""
    return tuple(metric for metric in task.metrics if metric.sota is not None)


def compared(task: SuperbTask, known: Collection[str]) -> tuple[Metric, ...]:
    """Return the metrics of a task that models are compared by where SUPERB's reference points do not count.

    Extra metrics of a recipe take the place of SUPERB's: character errors tell models apart that get no word
    right.

    Args:
        task: the task.
        known: names of the metrics that the models have results of.
    """
    extra = tuple(metric for metric in task.metrics if metric.extra and metric.name in known)
    return extra or scored(task)


def points(task: SuperbTask, metrics: Metrics) -> float | None:
    """Return the points of a task; ``None`` if one of its metrics is missing or none gives points."""
    values, scoring = metrics.get(task.name, {}), scored(task)
    if not scoring or any(metric.name not in values for metric in scoring):
        return None
    return sum(metric.points(values[metric.name]) for metric in scoring) / len(scoring)


def missing(metrics: Metrics) -> list[str]:
    """Return the names of the tasks whose absence leaves the score undefined."""
    return [task.name for task in core_tasks() if points(task, metrics) is None]


def score(metrics: Metrics) -> float | None:
    """Return the SUPERB score; ``None`` if a task is missing."""
    all_points = [points(task, metrics) for task in core_tasks()]
    present = [value for value in all_points if value is not None]
    return sum(present) / len(all_points) if len(present) == len(all_points) else None


def ranks(models: Sequence[Metrics]) -> list[float]:
    """Return the rank of each model among those given, higher for better."""
    wins = [0.0] * len(models)
    for task in core_tasks():
        metrics = scored(task)
        for metric in metrics:
            values = [model.get(task.name, {}).get(metric.name) for model in models]
            others = [metric.points(value) for value in values if value is not None]
            for index, value in enumerate(values):
                if value is not None:
                    beaten = sum(other < metric.points(value) for other in others)
                    wins[index] += beaten / len(metrics)
    return [count / len(core_tasks()) for count in wins]
