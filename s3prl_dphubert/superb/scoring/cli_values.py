"""Results given by hand, as ``ks=96.36 sf=86.86/28.26``."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ConfigError, ResultError
from ..tasks import all_tasks, find
from ..tasks.spec import Metric, SuperbTask
from . import points


def parse(texts: Iterable[str]) -> dict[str, dict[str, float]]:
    """Metrics by task from ``TASK=VALUE``, ``TASK=VALUE/VALUE`` or ``TASK.METRIC=VALUE``.

    Raises:
        ConfigError: listing every mistake, and what can be given in which unit.
    """
    metrics: dict[str, dict[str, float]] = {}
    faults: list[str] = []
    for text in texts:
        try:
            task, named = _parse(text)
        except ResultError as error:
            faults.append(str(error))
            continue
        known = metrics.setdefault(task.name, {})
        faults += [f"{task.name} {name} is given twice" for name in named if name in known]
        faults += [f"{task.name} {f}" for name, v in named.items() if (f := task.metric(name).fault(v))]
        known.update(named)
    if faults:
        faults.append(f"\n{units()}")
    ConfigError.raise_for("results", faults)
    return metrics


def _parse(text: str) -> tuple[SuperbTask, dict[str, float]]:
    left, equals, right = text.partition("=")
    if not equals:
        raise ResultError(f"{text!r} is no TASK=VALUE")
    name, _, metric = left.partition(".")
    task = find(name)
    wanted = [task.metric(metric)] if metric else list(points.scored(task) or task.metrics)
    given = right.split("/")
    if len(given) != len(wanted):
        raise ResultError(f"{task.name} has {len(given)} values, allowed: {_form(task, wanted)}")
    try:
        return task, {metric.name: float(value) for metric, value in zip(wanted, given, strict=True)}
    except ValueError as error:
        raise ResultError(f"{task.name} is {right!r}, allowed: {_form(task, wanted)}") from error


def _form(task: SuperbTask, metrics: list[Metric]) -> str:
    return f"{task.folder}={'/'.join(metric.name.upper() for metric in metrics)}"


def units() -> str:
    """What can be given, with units."""
    rows = []
    for task in all_tasks():
        metrics = list(points.scored(task) or task.metrics)
        listed = ", ".join(f"{m.title} in {m.unit}" if m.unit else m.title for m in metrics)
        rows.append(f"{_form(task, metrics):<24} {task.title}: {listed}")
    return "\n".join(rows)


def table(metrics: points.Metrics) -> str:
    """One line for each task given: its metrics and its points."""
    rows = []
    for task in all_tasks():
        found = metrics.get(task.name)
        if found is None:
            continue
        named = ", ".join(
            f"{task.metric(name).title} {value:g} {task.metric(name).unit}".strip()
            for name, value in found.items()
        )
        gained = points.points(task, metrics)
        worth = f"{gained:8.2f} points" if gained is not None else "       –"
        rows.append(f"{task.name:<8} {worth}   {named}")
    return "\n".join(rows)
