"""Differences of models in each metric, with intervals by a paired bootstrap over the test set's voices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...utils import markdown
from ..scoring.model_results import ModelResults
from ..scoring.uncertainty import HIGHER as RISES
from ..scoring.uncertainty import NO_CONCLUSION, Estimate, paired_difference
from ..tasks.spec import HIGHER, Metric, SuperbTask


def column_heading(task: SuperbTask, metric: Metric) -> str:
    """Return the heading of a column: task, metric, unit, and an arrow towards better values."""
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{task.name} {metric.title}{unit} {'↑' if metric.better == HIGHER else '↓'}"


@dataclass(frozen=True)
class Difference:
    """Difference of two models in a metric.

    Attributes:
        task: the task.
        metric: the metric.
        first: name of a model.
        second: name of the model whose value is subtracted.
        estimate: the difference with its interval.
    """

    task: SuperbTask
    metric: Metric
    first: str
    second: str
    estimate: Estimate

    @property
    def better(self) -> str:
        """Name of the better model; empty if the interval holds 0, so that nothing can be said."""
        conclusion = self.estimate.conclusion
        if conclusion == NO_CONCLUSION:
            return ""
        return self.first if (conclusion == RISES) == (self.metric.better == HIGHER) else self.second


def compare(first: ModelResults, second: ModelResults, tasks: Iterable[SuperbTask]) -> list[Difference]:
    """Return the differences in all metrics whose predictions both models left."""
    differences = []
    for task in tasks:
        for metric in task.metrics:
            values = [model.results.get(task.name, {}).get(metric.name) for model in (first, second)]
            one, other = (value.statistics if value is not None else () for value in values)
            if one and other:
                estimate = paired_difference(one, other)
                differences.append(Difference(task, metric, first.name, second.name, estimate))
    return differences


def table(differences: Iterable[Difference]) -> str:
    """Format differences as Markdown, a row each; no model is called better where the interval holds 0."""
    rows = [
        [
            column_heading(each.task, each.metric),
            markdown.cell(f"{each.first} − {each.second}"),
            f"{each.estimate.value:+.2f} [{each.estimate.low:+.2f}, {each.estimate.high:+.2f}]",
            markdown.cell(each.better) or "–",
        ]
        for each in differences
    ]
    return markdown.table(["", "difference", "95 % interval", "better"], rows)
