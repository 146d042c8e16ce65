"""Results of a model on SUPERB, published or of own runs, as a report shows them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import ConfigError, ResultError
from ...utils.config_io import read_yaml
from ..tasks import core_tasks, find
from ..tasks.spec import Metric, SuperbTask
from . import points
from .score_file import ScoreRecord
from .stored_statistics import from_plain
from .uncertainty import Statistic, estimate

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class MetricValue:
    """A metric over seeds.

    Args:
        mean: in the unit of the leaderboard.
        spread: standard deviation over the seeds (n - 1), 0 for one seed.
        seeds: how many.
        statistics: of each seed, the metric as a function of how often each voice of the test set counts;
            none where a result lacks it.
    """

    mean: float
    spread: float = 0.0
    seeds: int = 1
    statistics: tuple[Statistic, ...] = field(default=(), repr=False, compare=False)

    @property
    def standard_error(self) -> float | None:
        """Standard error over the voices of the test set and the seeds, if known."""
        if not self.statistics:
            return None
        error = estimate(self.statistics).standard_error
        return error if math.isfinite(error) else None


@dataclass(frozen=True)
class ModelResults:
    """Results of a model.

    Args:
        name: what it is called.
        results: task name -> metric name -> value.
        source: where they are from; empty for own runs.
        parameters: how many, if known.
        macs: of SUPERB's 32 utterances, if known.
        layer_weights: task name -> weights of the hidden states (L + 1) that its downstream learnt, the mean
            over seeds and parts.
    """

    name: str
    results: Mapping[str, Mapping[str, MetricValue]]
    source: str = ""
    parameters: int | None = None
    macs: int | None = None
    layer_weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict, repr=False)
    means: points.Metrics = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        means = {task: {name: value.mean for name, value in of.items()} for task, of in self.results.items()}
        object.__setattr__(self, "means", means)

    def points(self, task: SuperbTask) -> float | None:
        """Return the points of a task, from the means."""
        return points.points(task, self.means)

    def score(self) -> float | None:
        """Return the SUPERB score of the means; ``None`` if a task is missing."""
        return points.score(self.means)

    def points_spread(self, task: SuperbTask) -> float:
        """Return the standard deviation of a task's points; its metrics count as independent."""
        metrics = points.scored(task)
        values = self.results.get(task.name, {})
        shares = [_slope(metric) * values[metric.name].spread for metric in metrics if metric.name in values]
        return math.hypot(*shares) / len(metrics) if metrics else 0.0

    def score_spread(self) -> float | None:
        """Return the standard deviation of the score; ``None`` if a task has one seed only.

        Tasks count as independent.
        """
        values = [value for task in core_tasks() for value in self.results.get(task.name, {}).values()]
        if self.score() is None or any(value.seeds < 2 for value in values):
            return None
        return math.hypot(*(self.points_spread(task) for task in core_tasks())) / len(core_tasks())


def from_records(records: Iterable[ScoreRecord]) -> list[ModelResults]:
    """Gather the records of each model, in the order of first appearance.

    Records with a caution are left out. A recipe that made a model for each seed may leave some units more in
    one than in another: sizes are means over the seeds.

    Raises:
        ResultError: a seed of a task is there twice, or an upstream changes its size: at all among the tasks
            of a seed, or by more than one percent between seeds.
    """
    upstreams: dict[str, dict[str, list[ScoreRecord]]] = {}
    for record in (each for each in records if not each.caution):
        upstreams.setdefault(record.upstream, {}).setdefault(record.task, []).append(record)
    models = []
    for name, tasks in upstreams.items():
        for task, runs in tasks.items():
            seeds = [run.seed for run in runs]
            if len(set(seeds)) < len(seeds):
                raise ResultError(f"{name}, {task}: a seed is there twice among {sorted(seeds)}")
        results = {task: _over_seeds(find(task), runs) for task, runs in tasks.items()}
        runs = [run for of_task in tasks.values() for run in of_task]
        size = [_size(name, key, runs) for key in ("parameters", "macs")]
        weights = {task: mean for task, runs in tasks.items() if (mean := _mean_weights(name, runs))}
        models.append(ModelResults(name, results, "", size[0], size[1], weights))
    return models


def _size(name: str, key: str, runs: list[ScoreRecord]) -> int | None:
    """Return the mean size over the seeds; ``None`` if it is unknown."""
    by_seed: dict[int | None, set[int]] = {}
    for run in runs:
        if (value := getattr(run, key)) is not None:
            by_seed.setdefault(run.seed, set()).add(value)
    sizes = sorted(set().union(*by_seed.values()))
    if any(len(values) > 1 for values in by_seed.values()) or (sizes and sizes[-1] > 1.01 * sizes[0]):
        raise ResultError(f"{name}: {key} differ among its tasks: {sizes}")
    return round(statistics.fmean(max(values) for values in by_seed.values())) if by_seed else None


def _mean_weights(name: str, runs: list[ScoreRecord]) -> tuple[float, ...]:
    """Return the mean layer weights of a task's seeds and parts; empty if none has any."""
    learnt = [weights for run in runs for weights in run.layer_weights.values()]
    if len({len(weights) for weights in learnt}) > 1:
        raise ResultError(f"{name}, {runs[0].task}: its layer weights are of different numbers of layers")
    return tuple(map(statistics.fmean, zip(*learnt, strict=True)))


def _over_seeds(task: SuperbTask, runs: list[ScoreRecord]) -> dict[str, MetricValue]:
    results = {}
    for metric in task.metrics:
        values = [run.metrics[metric.name] for run in runs if metric.name in run.metrics]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            stored = [run.statistics[metric.name] for run in runs if metric.name in run.statistics]
            own = tuple(map(from_plain, stored)) if len(stored) == len(values) else ()
            results[metric.name] = MetricValue(statistics.fmean(values), spread, len(values), own)
    return results


def _slope(metric: Metric) -> float:
    return abs(metric.points(1.0) - metric.points(0.0))


@cache
def published() -> tuple[ModelResults, ...]:
    """Return the published results that ship.

    Raises:
        ConfigError: a row does not fit the tasks.
    """
    content = read_yaml(PUBLISHED)
    return tuple(_row(name, row, content["leaderboard"]) for name, row in content["rows"].items())


def _row(name: str, row: dict[str, Any], leaderboard: str) -> ModelResults:
    results = {}
    for task_name, values in row["results"].items():
        task = find(task_name)
        metrics = points.scored(task)
        listed = values if isinstance(values, list) else [values]
        if len(listed) != len(metrics):
            raise ConfigError(f"{name}, {task_name}: {len(listed)} values, allowed: {len(metrics)}")
        named = dict(zip((metric.name for metric in metrics), listed, strict=True))
        ConfigError.raise_for(f"{name}, {task_name}", task.faults(named))
        results[task.name] = {key: MetricValue(float(value)) for key, value in named.items()}
    source = leaderboard if row["source"] == "leaderboard" else f"arXiv {row['source']}"
    parameters = round(1e6 * row["parameters"]) if "parameters" in row else None
    return ModelResults(name, results, source, parameters, row.get("macs"))


def choose(name: str, models: Iterable[ModelResults]) -> ModelResults:
    """Return the model of that name, own runs before published rows.

    Raises:
        ResultError: there is none; the message lists them.
    """
    listed = [*models, *published()]
    for model in listed:
        if model.name.lower() == name.lower():
            return model
    raise ResultError(f"unknown model {name!r}; available: {', '.join(model.name for model in listed)}")
