"""Scores of finished tasks as a model card lists them."""

from __future__ import annotations

from pathlib import Path

from ...checkpoints.model_card import CardScore
from ...errors import ResultError
from ..tasks import find
from . import score_file
from .model_results import from_records


def card_scores(folders: list[Path], upstream: str | None = None, benchmark: str = "") -> list[CardScore]:
    """Return the scores of one model, in the order in which the benchmark lists its tasks.

    Args:
        folders: of ``superb run``.
        upstream: name of the model there; by default the only one.
        benchmark: by default SUPERB, or the only one that there are results of.

    Raises:
        ResultError: a folder holds no results or some that do not compare, or there are several models and
            none is named.
    """
    name, records = score_file.of_benchmark(score_file.collect(folders), benchmark)
    models = {model.name: model for model in from_records(records)}
    if upstream is None and len(models) == 1:
        upstream = next(iter(models))
    if upstream not in models:
        raise ResultError(
            f"upstream is {upstream!r}, allowed: {', '.join(models) or 'none, as all have a caution'}"
        )
    scores = []
    tasks = sorted(map(find, models[upstream].results), key=lambda task: (task.position, task.name))
    for task in tasks:
        values = models[upstream].results[task.name]
        for metric in task.metrics:
            if metric.name in values:
                title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
                value = values[metric.name]
                scores.append(
                    CardScore(name, task.name, task.title, metric.name, title, value.mean, value.seeds)
                )
    return scores
