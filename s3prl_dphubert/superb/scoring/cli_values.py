"""Results on the command line, such as ``ks=96.36 sf=86.86/28.26``."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ConfigError, ResultError
from ..tasks import all_tasks, find
from ..tasks.spec import Metric, SuperbTask
from . import points


def parse(texts: Iterable[str]) -> dict[str, dict[str, float]]:
    """Parse results by task from ``TASK=VALUE``, ``TASK=VALUE/VALUE`` or ``TASK.METRIC=VALUE``.

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
        given = metrics.setdefault(task.name, {})
        faults += [f"{task.name} {name} is given twice" for name in named if name in given]
        faults += [f"{task.name} {f}" for name, v in named.items() if (f := task.metric(name).fault(v))]
        given.update(named)
    if faults:
        faults.append(f"\n{units()}")
    ConfigError.raise_for("results", faults)
    return metrics


def _parse(text: str) -> tuple[SuperbTask, dict[str, float]]:
    left, equals, right = text.partition("=")
    if not equals:
        raise ResultError(f"{text!r} is not TASK=VALUE")
    name, _, metric = left.partition(".")
    task = find(name)
    metrics = [task.metric(metric)] if metric else list(points.scored(task) or task.metrics)
    values = right.split("/")
    if len(values) != len(metrics):
        raise ResultError(f"{task.name} has {len(values)} values, allowed: {_form(task, metrics)}")
    try:
        return task, {metric.name: float(value) for metric, value in zip(metrics, values, strict=True)}
    except ValueError as error:
        raise ResultError(f"{task.name} is {right!r}, allowed: {_form(task, metrics)}") from error


def _form(task: SuperbTask, metrics: list[Metric]) -> str:
    return f"{task.folder}={'/'.join(metric.name.upper() for metric in metrics)}"


def hints(metrics: points.Metrics) -> list[str]:
    """Describe values in percent that look like fractions."""
    hints = []
    for name, values in metrics.items():
        task = find(name)
        for metric in (task.metric(key) for key in values):
            value = values[metric.name]
            if metric.unit == "%" and 0 < value <= 1:
                hints.append(
                    f"{task.name} {metric.name} is {value:g} %; is it a fraction, {100 * value:g} %?"
                )
    return hints


def units() -> str:
    """Describe the results that can be given, with their units."""
    rows = []
    for task in all_tasks():
        metrics = list(points.scored(task) or task.metrics)
        listed = ", ".join(f"{m.title} in {m.unit}" if m.unit else m.title for m in metrics)
        rows.append(f"{_form(task, metrics):<24} {task.title}: {listed}")
    return "\n".join(rows)


def points_table(metrics: points.Metrics) -> str:
    """Format a line for each task: its points and its metrics."""
    rows = []
    for task in all_tasks():
        values = metrics.get(task.name)
        if values is None:
            continue
        named = ", ".join(
            f"{task.metric(name).title} {value:g} {task.metric(name).unit}".strip()
            for name, value in values.items()
        )
        task_points = points.points(task, metrics)
        worth = f"{task_points:8.2f} points" if task_points is not None else "       –"
        rows.append(f"{task.name:<8} {worth}   {named}")
    return "\n".join(rows)
