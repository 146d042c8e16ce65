"""The SUPERB score: points a metric, a task and a model gets, and its rank.

Of a metric: 1000 (x - FBANK) / (SOTA - FBANK), not clipped. Of a task: the mean over its metrics.
The score is the mean over the ten tasks (SUPERB challenge, 2110.08583, section 3; the
leaderboard rounds it). A rank is, per metric, how many of the models shown are strictly worse (0
when missing), averaged inside a task and then over the tasks; it depends on the models shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..tasks import core_tasks
from ..tasks.spec import Metric, SuperbTask

Metrics = Mapping[str, Mapping[str, float]]
"""Task name -> metric name -> value in the unit of the leaderboard."""


def scored(task: SuperbTask) -> tuple[Metric, ...]:
    """The metrics of a task that give points."""
    return tuple(metric for metric in task.metrics if metric.sota is not None)


def points(task: SuperbTask, metrics: Metrics) -> float | None:
    """Points of a task, or ``None`` when one of its metrics is missing or none gives points."""
    found = metrics.get(task.name, {})
    wanted = scored(task)
    if not wanted or any(metric.name not in found for metric in wanted):
        return None
    return sum(metric.points(found[metric.name]) for metric in wanted) / len(wanted)


def missing(metrics: Metrics) -> list[str]:
    """The tasks without which the score is undefined."""
    return [task.name for task in core_tasks() if points(task, metrics) is None]


def score(metrics: Metrics) -> float | None:
    """The SUPERB score, or ``None`` when a task is missing."""
    gained = [points(task, metrics) for task in core_tasks()]
    known = [value for value in gained if value is not None]
    return sum(known) / len(core_tasks()) if len(known) == len(core_tasks()) else None


def ranks(models: Sequence[Metrics]) -> list[float]:
    """The rank of each model among those given, higher for better."""
    wins = [0.0] * len(models)
    for task in core_tasks():
        metrics = scored(task)
        for metric in metrics:
            values = [model.get(task.name, {}).get(metric.name) for model in models]
            known = [metric.points(value) for value in values if value is not None]
            for index, value in enumerate(values):
                if value is not None:
                    beaten = sum(other < metric.points(value) for other in known)
                    wins[index] += beaten / len(metrics)
    return [won / len(core_tasks()) for won in wins]
