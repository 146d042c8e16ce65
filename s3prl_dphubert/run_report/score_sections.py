"""Sections of the page about scores: results with their errors, and layer weights that were learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..superb.report.collection import Collection
from ..superb.report.differences import column_heading
from ..superb.report.tables import Summary, columns, notes
from ..superb.scoring.model_results import MetricValue, ModelResults
from ..superb.tasks import find
from .page_blocks import (
    Block,
    Cell,
    Gallery,
    PageTable,
    Paragraph,
    Picture,
    Section,
    amount,
    decimal,
    missing,
)
from .page_figures import scores_figure, weights_figure

BASELINES = ("FBANK", "HuBERT Base", "DistilHuBERT", "DPHuBERT", "DPWavLM")
"""Published models that results of SUPERB are shown beside."""
EXPLANATION = (
    "Share of each hidden state in the weighted sum that a task's downstream reads, after the softmax. "
    "Hidden state 0 is the feature projection. A large weight may also make up for small values."
)
ERRORS = "Lines in the picture are standard errors; without these, standard deviations over seeds."
NO_SCORES = "No scores were given; report --scores FOLDER shows those of superb run."


def is_baseline(model: ModelResults) -> bool:
    """Return whether a published model is shown beside results of SUPERB."""
    return model.name in BASELINES


def scores(collection: Collection | None) -> Section:
    """Return the results of all models in each metric, with standard errors."""
    if collection is None:
        return Section("scores", "Scores", [missing(NO_SCORES)])
    summary = _largest_first(collection.summary)
    metrics = [
        (task, metric)
        for task, metric in columns(summary)
        if any(metric.name in model.results.get(task.name, {}) for model in summary.runs)
    ]
    head = [
        f"{summary.benchmark}",
        "parameters",
        *(column_heading(task, metric) for task, metric in metrics),
        *(["score"] if summary.has_points else []),
    ]
    rows = []
    for model in summary.models:
        results = (model.results.get(task.name, {}).get(metric.name) for task, metric in metrics)
        size = "–" if model.parameters is None else amount(model.parameters)
        total = model.score()
        score = [Cell("–" if total is None else f"{total:.0f}")] if summary.has_points else []
        rows.append([Cell(model.name, model.source), Cell(size), *map(_value, results), *score])
    own = frozenset(range(len(summary.runs)))
    blocks: list[Block] = [
        Picture.of(scores_figure(summary, metrics), "Scores of all models with their standard errors"),
        PageTable(head, rows, own),
        *(Paragraph(text) for text in (*notes(summary), ERRORS)),
        *(missing(f"Left out: {text}.") for text in collection.left_out),
    ]
    return Section("scores", "Scores", blocks)


def _largest_first(summary: Summary) -> Summary:
    """Return the same results with the largest model first, which is the teacher as a rule."""
    return replace(summary, runs=sorted(summary.runs, key=lambda model: -(model.parameters or 0)))


def _value(value: MetricValue | None) -> Cell:
    if value is None:
        return Cell("–")
    notes = []
    if value.standard_error is not None:
        notes.append(f"SE {value.standard_error:.2f}")
    if value.seeds > 1:
        notes.append(f"± {value.spread:.2f} ({value.seeds})")
    return Cell(decimal(value.mean, 2), ", ".join(notes))


def layer_weights(collection: Collection | None) -> Section:
    """Return the weights of hidden states that downstreams learnt."""
    title = "Layer weights that the downstreams learnt"
    if collection is None:
        return Section("weights", title, [missing("No scores were given, with which layer weights come.")])
    blocks: list[Block] = []
    models = _largest_first(collection.summary).runs
    weighted = [model for model in models if model.layer_weights]
    if weighted:
        most = max(max(weights) for model in weighted for weights in model.layer_weights.values())
        pictures = [
            Picture.of(
                weights_figure(_in_order(model.layer_weights), most),
                f"Layer weights of {model.name} by task",
                model.name,
            )
            for model in weighted
        ]
        blocks += [Paragraph(EXPLANATION), Gallery(pictures)]
    others = [model.name for model in models if not model.layer_weights]
    if others:
        why = "of an upstream with one hidden state, or written by an earlier version"
        blocks.append(missing(f"No layer weights in score.json of {', '.join(others)}: {why}."))
    return Section("weights", title, blocks)


def _in_order(weights: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Return layer weights by task in the order of the benchmark."""
    return {name: weights[name] for name in sorted(weights, key=lambda name: (find(name).position, name))}


def versions(collection: Collection | None) -> list[str]:
    """Return the sets of versions that made the scores."""
    records = collection.records if collection else ()
    sets = (
        ", ".join(f"{name} {version}" for name, version in record.versions.items() if version)
        for record in records
    )
    return list(dict.fromkeys(filter(None, sets)))


def commands(collection: Collection | None) -> list[str]:
    """Return the commands that made the scores."""
    return list(dict.fromkeys(record.command for record in collection.records)) if collection else []
