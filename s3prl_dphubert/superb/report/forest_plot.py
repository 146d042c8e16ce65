"""Forest plot: differences of models with their 95 % intervals beside a line at zero, one row for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from ...errors import ResultError
from ...utils.files import replacing
from ..scoring.uncertainty import HIGHER, LOWER, NO_CONCLUSION, Estimate
from .report_plots import INK, LINES

BETTER, WORSE, OPEN = "#1f6f8b", "#d1495b", "#8a949d"
STYLES = {HIGHER: (BETTER, ">", BETTER), LOWER: (WORSE, "<", WORSE), NO_CONCLUSION: (OPEN, "o", "white")}
"""Colour, marker and filling of each conclusion; marks point to the better side and need no colour."""
BAND = "#f4f6f8"


@dataclass(frozen=True)
class ForestRow:
    """One difference.

    Attributes:
        group: what is compared, such as a task; rows of a group stand together.
        label: which two models, or under which head.
        estimate: the difference, positive where the first model is better.
        unit: shown behind the numbers.
    """

    group: str
    label: str
    estimate: Estimate
    unit: str = ""


def forest_plot(
    rows: Sequence[ForestRow], target: Path, title: str = "", better: tuple[str, str] = ("worse", "better")
) -> None:
    """Draw differences as PNG, from top to bottom in the order given.

    Args:
        rows: the differences; those of one group follow each other.
        target: the file.
        title: above the plot.
        better: what lies left and right of zero, such as the names of the models that are better there.

    Raises:
        ResultError: there are no rows, or a difference is not a number.
    """
    if not rows or not all(math.isfinite(row.estimate.value) for row in rows):
        raise ResultError(
            f"forest plot: {len(rows)} rows, allowed: one or more, each with a finite difference"
        )
    places, groups = _places(rows)
    height = 1.7 + 0.32 * (places[-1] + 1)
    figure = Figure(figsize=(9, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    axes = figure.add_subplot()
    reach = 1.08 * max(_ends(row.estimate) for row in rows) or 1.0
    for number, (low, high) in enumerate(groups.values()):
        if number % 2 == 0:
            axes.axhspan(low - 0.5, high + 0.5, color=BAND, zorder=0, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1.2, zorder=1)
    for place, row in zip(places, rows, strict=True):
        _draw(axes, place, row, reach)
    headings = [low for low, _ in groups.values()]
    axes.set_yticks([*headings, *places], [*groups, *(row.label for row in rows)])
    for label in axes.get_yticklabels()[: len(groups)]:
        label.set_fontweight("bold")
    axes.set(xlim=(-reach, reach), ylim=(places[-1] + 0.8, -0.8))
    axes.set_xlabel(f"← {better[0]}        difference with 95 % interval        {better[1]} →", color=INK)
    axes.tick_params(left=False, bottom=False, labelcolor=INK)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.grid(axis="x", color=LINES, linewidth=0.9)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", weight="bold", color=INK)
    figure.legend(handles=_marks(better), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    with replacing(target) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _places(rows: Sequence[ForestRow]) -> tuple[list[float], dict[str, tuple[float, float]]]:
    """Return the place of each row, and of each group those of its heading and its last row."""
    places: list[float] = []
    groups: dict[str, tuple[float, float]] = {}
    place = -1.0
    for row in rows:
        if row.group not in groups:
            place += 1.0
            groups[row.group] = (place, place)
        place += 1.0
        groups[row.group] = (groups[row.group][0], place)
        places.append(place)
    return places, groups


def _ends(estimate: Estimate) -> float:
    """Return the largest distance from zero that has to be shown; endless intervals run off the plot."""
    return max(abs(each) for each in (estimate.value, estimate.low, estimate.high) if math.isfinite(each))


def _draw(axes: Axes, place: float, row: ForestRow, reach: float) -> None:
    color, marker, filling = STYLES[row.estimate.conclusion]
    low, high = (min(max(end, -reach), reach) for end in (row.estimate.low, row.estimate.high))
    axes.plot([low, high], [place, place], color=color, linewidth=2, solid_capstyle="butt", zorder=2)
    for end in (low, high):
        axes.plot([end, end], [place - 0.14, place + 0.14], color=color, linewidth=1.4, zorder=2)
    axes.plot(
        row.estimate.value, place, marker, color=color, markerfacecolor=filling, markersize=8,
        markeredgewidth=1.6, zorder=3,
    )  # fmt: skip
    text = f"{row.estimate.value:+.1f} [{row.estimate.low:+.1f}, {row.estimate.high:+.1f}]{row.unit}"
    axes.annotate(
        text, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=INK,
        weight="normal" if row.estimate.conclusion == NO_CONCLUSION else "bold",
    )  # fmt: skip


def _marks(better: tuple[str, str]) -> list[Line2D]:
    """Return the marks of a legend."""
    labels = {HIGHER: better[1], LOWER: better[0], NO_CONCLUSION: f"{NO_CONCLUSION}: the interval holds 0"}
    return [
        Line2D([], [], color=color, marker=marker, markerfacecolor=filling, markersize=8, label=labels[name])
        for name, (color, marker, filling) in STYLES.items()
    ]
