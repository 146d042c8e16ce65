"""Plot of a report on SUPERB: points of each task, scores, and points lost against the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ...utils.files import replacing
from ..scoring.model_results import ModelResults
from ..scoring.points import missing
from ..tasks import core_tasks
from .tables import Summary

COLORS = ("#1f6f8b", "#d1495b", "#e0a030", "#66a182", "#7d5ba6", "#8c6d46")
MARKERS = "osD^vP"
OTHERS, TEACHER, LINES, INK = "#c3ccd5", "#2e4057", "#e6eaee", "#3c4650"


def plot(summary: Summary, target: Path) -> None:
    """Draw a report as PNG.

    Left, points of each task: own runs as coloured marks with the standard deviation over seeds,
    the teacher as a dark bar, published models as grey ones. Right, SUPERB scores. Below, if there
    is a teacher, points lost against it.
    """
    rows = len(summary.models)
    height = max(4.6, 1.4 + 0.27 * rows)
    losses = summary.teacher is not None and any(summary.lost(model) for model in summary.runs)
    figure = Figure(
        figsize=(14, height + 3.2 * losses), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    )
    heights = [height, 3.2] if losses else [height]
    grid = figure.add_gridspec(len(heights), 2, width_ratios=[1.75, 1], height_ratios=heights)
    _tasks(figure.add_subplot(grid[0, 0]), summary)
    _scores(figure.add_subplot(grid[0, 1]), summary)
    if losses:
        _losses(figure.add_subplot(grid[1, :]), summary)
    with replacing(target) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _color(summary: Summary, model: ModelResults) -> str:
    for index, run in enumerate(summary.runs):
        if run is model:
            return COLORS[index % len(COLORS)]
    return TEACHER if model is summary.teacher else OTHERS


def marks(index: int) -> dict[str, Any]:
    """Style of the points of an own run and of their spread."""
    return {
        "fmt": MARKERS[index % len(MARKERS)],
        "color": COLORS[index % len(COLORS)],
        "markeredgecolor": "white",
        "markeredgewidth": 0.8,
        "capsize": 3,
    }


def _tasks(axes: Axes, summary: Summary) -> None:
    axes.axhline(1000, color=INK, linewidth=0.8, linestyle=":")
    axes.text(len(core_tasks()) - 0.36, 1000, "SOTA", va="center", fontsize=8, color=INK)
    for model in summary.models:
        if model in summary.runs:
            continue
        dark = model is summary.teacher
        points = [(x, y) for x, task in enumerate(core_tasks()) if (y := model.points(task)) is not None]
        axes.hlines(
            [y for _, y in points],
            [x - 0.34 for x, _ in points],
            [x + 0.34 for x, _ in points],
            color=_color(summary, model),
            linewidth=2.4 if dark else 1.2,
            label=f"{model.name} (teacher)" if dark else "",
            zorder=2 if dark else 1,
        )
    step = 0.56 / max(len(summary.runs), 1)
    for index, model in enumerate(summary.runs):
        positions = [
            (x, task, y) for x, task in enumerate(core_tasks()) if (y := model.points(task)) is not None
        ]
        axes.errorbar(
            [x + step * (index - (len(summary.runs) - 1) / 2) for x, _, _ in positions],
            [y for _, _, y in positions],
            yerr=[model.points_spread(task) for _, task, _ in positions],
            **marks(index),
            markersize=7,
            label=model.name + (" (teacher)" if model is summary.teacher else ""),
            zorder=3,
        )
    if len(summary.models) > len(summary.runs) + (summary.teacher not in (None, *summary.runs)):
        axes.hlines([], [], [], color=OTHERS, linewidth=1.2, label="published models")
    shown = [
        y
        for m in summary.models
        if m.name != "FBANK"
        for task in core_tasks()
        if (y := m.points(task)) is not None
    ]
    axes.set_ylim(min(shown, default=0) - 60, max(shown, default=1000) + 60)
    axes.set(xlim=(-0.6, len(core_tasks()) - 0.4), ylabel="points (0: FBANK, 1000: SOTA)")
    axes.set_title("Points per task", loc="left", weight="bold", color=INK)
    _dress(axes, "y")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=4, fontsize=9, frameon=False)


def _scores(axes: Axes, summary: Summary) -> None:
    scored = sorted((m for m in summary.models if m.score() is not None), key=lambda m: m.score() or 0)
    models = [*(m for m in summary.models if m.score() is None), *scored]
    top = max((m.score() or 0 for m in models), default=0) or 1000
    for y, model in enumerate(models):
        score, bold = model.score(), model in summary.runs
        size = f" · {model.parameters / 1e6:.1f} M" if model.parameters else ""
        if score is None:
            absent = missing(model.means)
            text = (
                "no score: " + (", ".join(absent) if len(absent) < 5 else f"{len(absent)} tasks") + " missing"
            )
            axes.text(0.012 * top, y, text, va="center", fontsize=9, color=INK, style="italic")
        else:
            axes.barh(y, score, color=_color(summary, model), height=0.72, xerr=model.score_spread() or 0)
            axes.text(
                max(score, 0) + 0.012 * top + (model.score_spread() or 0),
                y,
                f"{score:.0f}{size}",
                va="center",
                fontsize=9,
                color=INK,
                weight="bold" if bold else "normal",
            )
    axes.set_yticks(range(len(models)), [model.name for model in models], fontsize=9)
    for label, model in zip(axes.get_yticklabels(), models, strict=True):
        label.set_fontweight("bold" if model in summary.runs else "normal")
    axes.set(xlim=(0, 1.3 * top), ylim=(min(-0.6, len(models) - 8.4), len(models) - 0.4))
    axes.set_title("SUPERB score · parameters", loc="left", weight="bold", color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)


def _losses(axes: Axes, summary: Summary) -> None:
    models = [model for model in summary.runs if summary.lost(model) and model is not summary.teacher]
    width = 0.76 / max(len(models), 1)
    for index, model in enumerate(models):
        lost = summary.lost(model)
        heights = [(x, lost[task.name]) for x, task in enumerate(core_tasks()) if task.name in lost]
        places = [x + width * (index - (len(models) - 1) / 2) for x, _ in heights]
        values = [value for _, value in heights]
        bars = axes.bar(places, values, 0.92 * width, color=_color(summary, model), label=model.name)
        if len(models) <= 4:
            axes.bar_label(bars, [f"{round(value)}" for value in values], padding=2, fontsize=8, color=INK)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.margins(y=0.14)
    teacher = summary.teacher.name if summary.teacher else ""
    axes.set(xlim=(-0.6, len(core_tasks()) - 0.4), ylabel="points lost")
    axes.set_title(f"Points lost against {teacher}", loc="left", weight="bold", color=INK)
    _dress(axes, "y")


def _dress(axes: Axes, grid: str) -> None:
    axes.set_xticks(range(len(core_tasks())), [task.name for task in core_tasks()])
    axes.tick_params(bottom=False, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis=grid, color=LINES, linewidth=0.9)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
