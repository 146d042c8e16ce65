"""Plots of probes: scores by layer, scores of models with error bars, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..superb.report.forest_plot import ForestRow, forest_plot
from ..superb.report.report_plots import COLORS, INK, LINES, MARKERS, TEACHER
from ..utils.files import replacing
from .comparison import ProbeDifference
from .probe_record import BEST_LAYER, HEADS, METRICS, PROBES, ProbeRecord, direction

DASHES = ("-", "--", "-.", ":")


def plot(records: Sequence[ProbeRecord], target: Path) -> None:
    """Draw two rows of plots as PNG, one column for each probe.

    Above, the score of every layer with its standard error; models of one layer are horizontal lines. Below,
    the score of every model under both heads.

    Args:
        records: one for each model.
        target: the file.
    """
    probes = [name for name in PROBES if any(record.score(name, BEST_LAYER) for record in records)]
    size = (4.3 * max(len(probes), 2), 7.4 + 0.16 * len(records))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.12))
    grid = figure.add_gridspec(2, max(len(probes), 1), height_ratios=[1, 0.5 + 0.06 * len(records)])
    for column, probe in enumerate(probes):
        above = figure.add_subplot(grid[0, column])
        _layers(above, probe, records)
        _heads(figure.add_subplot(grid[1, column]), probe, records, labelled=column == 0)
    if probes:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    with replacing(target) as partial:
        figure.savefig(partial, dpi=110, format="png")


def _layers(axes: Axes, probe: str, records: Sequence[ProbeRecord]) -> None:
    deepest = max(len(record.curves.get(probe, [])) for record in records) - 1
    for number, record in enumerate(records):
        curve = record.curves.get(probe, [])
        color, dash = COLORS[number % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]
        if len(curve) == 1:
            axes.axhline(curve[0][0] or 0, color=color, linestyle=":", linewidth=1.4, label=record.model)
        elif curve:
            values, errors = ([each or 0.0 for each in column] for column in zip(*curve, strict=True))
            axes.errorbar(
                range(len(curve)), values, yerr=errors, color=color, linestyle=dash, capsize=2, markersize=5,
                marker=MARKERS[number % len(MARKERS)], linewidth=1.5, label=record.model,
            )  # fmt: skip
    chance = [record.chance[probe] for record in records if probe in record.chance]
    if chance:
        axes.axhline(chance[0], color=LINES, linewidth=1.4, zorder=0)
        axes.text(
            1, chance[0], "chance", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.set(xlabel="layer", ylabel=f"{METRICS[probe]} %")
    axes.set_xticks(range(deepest + 1))
    axes.set_title(f"{probe} {'↑' if direction(probe) > 0 else '↓'}", loc="left", weight="bold", color=INK)
    _dress(axes, "y")


def _heads(axes: Axes, probe: str, records: Sequence[ProbeRecord], labelled: bool) -> None:
    for number, record in enumerate(records):
        for shift, head in zip((-0.16, 0.16), HEADS, strict=True):
            if score := record.score(probe, head):
                color = COLORS[number % len(COLORS)]
                axes.errorbar(
                    score.estimate.value, number + shift, xerr=score.estimate.standard_error, color=color,
                    marker=MARKERS[number % len(MARKERS)], capsize=3, markersize=6,
                    markerfacecolor=color if head == BEST_LAYER else "white",
                )  # fmt: skip
    axes.set_yticks(range(len(records)), [record.model for record in records] if labelled else [])
    axes.set(ylim=(len(records) - 0.4, -0.6), xlabel=f"filled: {HEADS[0]}, open: {HEADS[1]}")
    _dress(axes, "x")


def _dress(axes: Axes, grid: str) -> None:
    axes.tick_params(bottom=False, left=False, labelcolor=TEACHER)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis=grid, color=LINES, linewidth=0.9)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def plot_differences(differences: Iterable[ProbeDifference], target: Path) -> None:
    """Draw paired differences of two models as a forest plot.

    Args:
        differences: of the same two models.
        target: the file, PNG.
    """
    listed = list(differences)
    rows = [ForestRow(each.probe, each.head, each.estimate) for each in listed]
    first, second = listed[0].first, listed[0].second
    forest_plot(rows, target, f"{first} beside {second}", (f"{second} better", f"{first} better"))
