"""Points relative to two own models: in every metric one reaches 0 points and the other 1000.

They replace SUPERB's reference points, FBANK and the best of the leaderboard, on other data and shorter
trainings, where those have no meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..tasks.spec import HIGHER, Metric, SuperbTask
from . import points
from .model_results import ModelResults


@dataclass(frozen=True)
class RelativePoints:
    """Two models that serve as reference points.

    Args:
        zero: model of 0 points.
        top: model of 1000 points.
        smallest_span: difference between the two, in the metric's unit, below which a metric gives no points:
            a fraction of a percent would decide over hundreds of them.
        unscored: names of tasks that give no points, as they fail the check of validity.
    """

    zero: ModelResults
    top: ModelResults
    smallest_span: float = 0.0
    unscored: frozenset[str] = frozenset()

    def task(self, task: SuperbTask) -> SuperbTask | None:
        """Return the task with these two as its reference points.

        ``None`` where the task is unscored, a metric of one of the two is missing, ``top`` is not the better
        one, or they differ by less than ``smallest_span``: points would have no meaning.
        """
        if task.name in self.unscored:
            return None
        moved = {metric.name: self._metric(task, metric) for metric in self.metrics(task)}
        if not moved or None in moved.values():
            return None
        others = {metric.name: replace(metric, fbank=None, sota=None) for metric in task.metrics}
        return replace(task, metrics=tuple(moved.get(name) or other for name, other in others.items()))

    def metrics(self, task: SuperbTask) -> tuple[Metric, ...]:
        """Return the metrics of a task that give points."""
        results = (model.results.get(task.name, {}) for model in (self.zero, self.top))
        return points.compared(task, set.intersection(*map(set, results)))

    def points(self, model: ModelResults, task: SuperbTask) -> float | None:
        """Return the points of a model, from the means over its seeds; ``None`` if the task gives none."""
        own = self.task(task)
        return model.points(own) if own is not None else None

    def spread(self, model: ModelResults, task: SuperbTask) -> float:
        """Return the standard deviation of a model's points over its seeds; the references count as exact."""
        own = self.task(task)
        return model.points_spread(own) if own is not None else 0.0

    def _metric(self, task: SuperbTask, metric: Metric) -> Metric | None:
        low, high = (model.means.get(task.name, {}).get(metric.name) for model in (self.zero, self.top))
        if low is None or high is None or (high > low) != (metric.better == HIGHER) or high == low:
            return None
        if abs(high - low) < self.smallest_span:
            return None
        return replace(metric, fbank=low, sota=high)
