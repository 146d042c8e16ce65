"""Figures of the page that compare runs and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..compression.run_record import RunRecord
from ..superb.report.differences import column_heading
from ..superb.report.report_plots import COLORS, MARKERS, OTHERS, TEACHER
from ..superb.report.tables import Summary
from ..superb.scoring.model_results import MetricValue, ModelResults
from ..superb.tasks.spec import Metric, SuperbTask
from ..utils.plot_style import AFTER, FAINT, INK, LINES, dress, literal

LAST_LOSSES = ("stage2", "pruned", "stage1")
"""Names of validation losses in results.json, the last one first."""
_WEIGHTS = LinearSegmentedColormap.from_list("weights", ("#ffffff", AFTER))
_DARK = 0.6  # share of the largest weight from which on a cell's number is white


def last_loss(run: RunRecord) -> float | None:
    """Return the validation loss of the newest model."""
    return next((run.losses[name] for name in LAST_LOSSES if name in run.losses), None)


def comparison_figure(runs: Sequence[tuple[str, RunRecord]]) -> Figure:
    """Draw the validation loss of several runs over time, and at the end over their parameters."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    curves, ends = figure.subplots(1, 2, width_ratios=(1.7, 1))
    ends.set_visible(sum(last_loss(run) is not None and run.cost is not None for _, run in runs) > 1)
    for number, (name, run) in enumerate(runs):
        color = COLORS[number % len(COLORS)]
        shift = run.stage1[-1]["update"] if run.stage1 else 0
        points = [
            (row["update"] + offset, row["valid_loss"])
            for rows, offset in ((run.stage1, 0), (run.stage2, shift))
            for row in rows
            if "valid_loss" in row
        ]
        if points:
            curves.plot(*zip(*points, strict=True), "o-", color=color, markersize=4, label=literal(name))
        loss = last_loss(run)
        if loss is not None and run.cost is not None:
            marker = MARKERS[number % len(MARKERS)]
            ends.plot(run.cost.parameters / 1e6, loss, marker, color=color, markersize=8)
            ends.annotate(
                literal(name), (run.cost.parameters / 1e6, loss), (0, 9), textcoords="offset points",
                ha="center", color=color, fontsize=9,
            )  # fmt: skip
    dress(curves, "Validation loss")
    dress(ends, "Validation loss by size", "both")
    curves.set_xlabel("update")
    ends.set_xlabel("parameters, M")
    ends.margins(0.25)
    if curves.get_legend_handles_labels()[0]:
        curves.legend(frameon=False, fontsize=9)
    return figure


def scores_figure(summary: Summary, columns: Sequence[tuple[SuperbTask, Metric]], across: int = 3) -> Figure:
    """Draw the results of each metric in a panel, a row for each model, with standard errors.

    Args:
        summary: models, the first one at the top.
        columns: the metrics.
        across: panels beside each other.
    """
    models, down = summary.models, -(-len(columns) // across)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(11, down * (1.0 + 0.27 * len(models))), layout=layout)
    panels = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
    for axes, (task, metric) in zip(panels, columns, strict=False):
        for place, model in enumerate(models):
            value = model.results.get(task.name, {}).get(metric.name)
            if value is not None:
                axes.errorbar(
                    value.mean, place, xerr=error_of(value) or 0, fmt=_marker(summary, model),
                    color=_color(summary, model), markersize=6, capsize=2.5, linewidth=1.4,
                )  # fmt: skip
        dress(axes, column_heading(task, metric), "x")
        axes.hlines(
            range(len(models)), 0, 1, transform=axes.get_yaxis_transform(), color=LINES, linewidth=0.6
        )
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(bottom=False)
        axes.margins(x=0.12)
    for axes in panels[len(columns) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(models)), [literal(model.name) for model in models])
    panels[0].set_ylim(len(models) - 0.4, -0.6)
    return figure


def error_of(value: MetricValue) -> float | None:
    """Return the standard error over voices and seeds, or else the standard deviation of several seeds."""
    return value.standard_error if value.standard_error is not None else value.spread or None


def _color(summary: Summary, model: ModelResults) -> str:
    if model in summary.runs:
        return COLORS[summary.models.index(model) % len(COLORS)]
    return TEACHER if model is summary.teacher else OTHERS


def _marker(summary: Summary, model: ModelResults) -> str:
    return MARKERS[summary.models.index(model) % len(MARKERS)] if model in summary.runs else "|"


def weights_figure(weights_by_task: Mapping[str, Sequence[float]], most: float) -> Figure:
    """Draw the layer weights (L + 1) that the downstreams of a model learnt, a row for each task.

    Args:
        weights_by_task: task -> weights, which sum to 1.
        most: weight that has the darkest colour.
    """
    layers = max(map(len, weights_by_task.values()))
    values = np.full((len(weights_by_task), layers), np.nan)
    for row, weights in enumerate(weights_by_task.values()):
        values[row, : len(weights)] = weights
    figure = Figure(figsize=(max(5.5, 0.42 * layers), 0.9 + 0.3 * len(values)), layout="constrained")
    axes = figure.add_subplot()
    axes.pcolormesh(values, cmap=_WEIGHTS, vmin=0, vmax=most, edgecolors="white", linewidth=1.5)
    for row, column in np.argwhere(np.isfinite(values)) if layers <= 26 else ():
        weight = values[row, column]
        color = "white" if weight > _DARK * most else INK if weight >= 0.01 else FAINT
        text = f"{100 * weight:.0f}"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color=color)
    step = 1 if layers <= 26 else 4
    axes.set_xticks(np.arange(0, layers, step) + 0.5, [str(layer) for layer in range(0, layers, step)])
    axes.set_yticks(np.arange(len(values)) + 0.5, list(weights_by_task))
    axes.invert_yaxis()
    dress(axes, "")
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(bottom=False)
    axes.set_xlabel("hidden state; weights in %")
    return figure
