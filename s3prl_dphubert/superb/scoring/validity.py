"""Check of validity: a task counts only if models that must differ come out in their order.

Such a chain runs from a model that must be worst to one that must be best: random weights, an early and a
late checkpoint of the same pre-training. A task that cannot put them in order cannot tell anything finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...errors import ConfigError
from ..tasks.spec import HIGHER, Metric, SuperbTask
from . import points
from .model_results import MetricValue, ModelResults
from .uncertainty import HIGHER as RISES
from .uncertainty import LOWER as FALLS
from .uncertainty import paired_difference


@dataclass(frozen=True)
class Verdict:
    """Decision on whether a task counts.

    Attributes:
        task: the task.
        scored: whether it does.
        reason: why it does not, or the values that are in order.
    """

    task: SuperbTask
    scored: bool
    reason: str


def chain(names: Sequence[str], models: Sequence[ModelResults]) -> list[ModelResults]:
    """Return the models of a chain by their names.

    Raises:
        ConfigError: a name is unknown, or there are fewer than two.
    """
    known = {model.name: model for model in models}
    unknown = [name for name in map(str.strip, names) if name not in known]
    if unknown or len(names) < 2:
        fault = f"has {unknown[0]!r}" if unknown else f"has {len(names)} models"
        raise ConfigError(f"chain {fault}, allowed: two or more of {', '.join(known)}, the worst first")
    return [known[name.strip()] for name in names]


def judge(task: SuperbTask, chain: Sequence[ModelResults]) -> Verdict:
    """Return whether a task puts a chain of models in order, in every metric that they are compared by.

    Each model must be better than the one before. Where predictions tell the standard error, the last one
    must be better than the first beyond chance: the 95 % interval of their difference does not hold 0.

    Args:
        task: the task.
        chain: models from the worst to the best.
    """
    reasons = []
    known = set.intersection(*(set(model.results.get(task.name, {})) for model in chain))
    for metric in points.compared(task, known):
        values = [model.results.get(task.name, {}).get(metric.name) for model in chain]
        present = [value for value in values if value is not None]
        if len(present) < len(chain):
            absent = ", ".join(model.name for model, v in zip(chain, values, strict=True) if v is None)
            return Verdict(task, False, f"no {metric.title} of {absent}")
        listed = f"{metric.title} {' → '.join(f'{value.mean:.2f}' for value in present)}"
        if fault := _fault(metric, present):
            return Verdict(task, False, f"{listed}: {fault}")
        reasons.append(listed)
    return Verdict(task, True, ", ".join(reasons))


def _fault(metric: Metric, values: Sequence[MetricValue]) -> str:
    """Describe how values from the worst to the best model contradict that; empty if they do not."""
    sign = 1 if metric.better == HIGHER else -1
    if not all(sign * (b.mean - a.mean) > 0 for a, b in pairwise(values)):
        return "not in order"
    first, last = values[0].statistics, values[-1].statistics
    if not first or not last:
        return ""
    difference = paired_difference(last, first)
    if difference.conclusion == (RISES if sign > 0 else FALLS):
        return ""
    return f"the last and the first may be equal, [{difference.low:+.2f}, {difference.high:+.2f}]"
