"""Plot of points relative to two models: one line for each task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ...utils.files import replacing
from ..scoring.model_results import ModelResults
from ..scoring.relative_points import RelativePoints
from ..tasks.spec import SuperbTask
from .report_plots import INK, LINES, TEACHER, marks

LOW, HIGH, MARGIN = -500, 2500, 90
"""Points that are drawn in their place at most; what lies beyond stands at the edge, with its number."""


def plot(
    between: RelativePoints, models: Sequence[ModelResults], tasks: Sequence[SuperbTask], target: Path
) -> None:
    """Draw the points of each task as PNG.

    Args:
        between: the models of 0 and 1000 points, drawn as two vertical lines.
        models: a mark each, with the standard deviation over seeds.
        tasks: from top to bottom, those without points left out.
        target: the file.
    """
    rows = [task for task in tasks if between.task(task) is not None]
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(9, 2.3 + 0.42 * max(len(rows), 1)), layout=layout)
    axes = figure.add_subplot()
    for place, model in ((0, between.zero), (1000, between.top)):
        axes.axvline(place, color=TEACHER, linewidth=1.6, zorder=1)
        axes.text(place, -0.75, model.name, ha="center", va="bottom", color=TEACHER, weight="bold")
    points = [x for model in models for task in rows if (x := between.points(model, task)) is not None]
    low, high = max(LOW, min([0, *points])), min(HIGH, max([1000, *points]))
    step = 0.5 / max(len(models), 1)
    for index, model in enumerate(models):
        shift = step * (index - (len(models) - 1) / 2)
        marked = [
            (y + shift, task, x)
            for y, task in enumerate(rows)
            if (x := between.points(model, task)) is not None
        ]
        axes.errorbar(
            [min(max(x, LOW), HIGH) for _, _, x in marked],
            [y for y, _, _ in marked],
            xerr=[between.spread(model, task) for _, task, _ in marked],
            **marks(index),
            markersize=8,
            label=model.name,
            zorder=3,
        )
        for y, _, x in marked:
            if not LOW <= x <= HIGH:
                _number(axes, x, y)
    axes.set_yticks(range(len(rows)), [task.name for task in rows])
    axes.set(
        xlim=(low - MARGIN, high + MARGIN),
        ylim=(max(len(rows), 1) - 0.4, -0.6),
        xlabel=f"points (0: {between.zero.name}, 1000: {between.top.name})",
    )
    axes.tick_params(left=False, bottom=False, labelcolor=INK)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.grid(axis="x", color=LINES, linewidth=0.9)
    axes.set_axisbelow(True)
    if models:
        figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    with replacing(target) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _number(axes: Axes, x: float, y: float) -> None:
    """Write the position of a mark outside the plot beside its place at the edge."""
    edge, form = (LOW, "← {:.0f}") if x < LOW else (HIGH, "{:.0f} →")
    axes.annotate(
        form.format(x),
        (edge, y),
        (9, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        color=INK,
        fontsize=8,
    )
