"""Plots of a run: loss and sparsity over time, and the units that remain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..checkpoints.units_figure import UnitCounts, units_figure
from ..model import ModelConfig
from ..utils.config_io import is_number
from ..utils.files import replacing
from ..utils.plot_style import AFTER, BEFORE, CHECK, COUNTS, FAINT, INK, dress, literal
from ..utils.readers import read_json_lines, read_record

Row = dict[str, float]
LARGEST = 1e30  # value of a log that is drawn
COUNT_NAMES = {"macs": "MACs", "superb_macs": "SUPERB MACs", "latency": "time", "parameters": "parameters"}


def read_log(folder: Path) -> list[Row]:
    """Return the rows of a stage's ``log.jsonl`` that can be read."""
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    return [
        row
        for row in read_json_lines(path)
        if all(is_number(value) and abs(value) < LARGEST for value in row.values()) and "update" in row
    ]


def plot_training(run: Path, target: Path) -> None:
    """Plot the loss of both stages, and the sparsity of stage 1 beside its target.

    Args:
        run: directory of the run, with the logs of its stages and ``results.json``.
        target: PNG file.
    """
    figure = training_figure(read_log(run / "stage1"), read_log(run / "stage2"))
    figure.suptitle(literal(_headline(run)), x=0.01, ha="left", weight="bold", color=INK, fontsize=13)
    _save(figure, target)


def training_figure(first: list[Row], second: list[Row]) -> Figure:
    """Draw the loss of both stages, and the sparsity of stage 1 beside its target, from their logs."""
    panels = 2 if first else 1
    figure = Figure(figsize=(9, 1 + 2.7 * panels), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)
    offset = first[-1]["update"] if first else 0
    _plot_loss(axes[0, 0], [(first, 0), (second, offset)])
    if first:
        _plot_sparsity(axes[1, 0], first)
        for axis in axes[:, 0]:
            axis.axvline(offset, color=FAINT, linewidth=0.8, linestyle=":")
        if second:
            axes[1, 0].text(
                offset, 2, "  cut here; stage 2 distils the small model", color=FAINT, fontsize=9, va="bottom"
            )
    axes[-1, 0].set_xlabel("update")
    axes[-1, 0].set_xlim(left=0)
    return figure


def _headline(run: Path) -> str:
    """Return what the run has made of its teacher, as far as its results say."""
    results = read_record(run / "results.json")
    costs = [results.get(name, {}).get("parameters") for name in ("teacher", "model")]
    if not all(is_number(cost) and cost for cost in costs):
        return run.resolve().name
    before, after = costs
    change = f"{before / 1e6:.2f} M to {after / 1e6:.2f} M parameters ({100 * after / before:.0f} %)"
    return f"{run.resolve().name}: {change}"


def _plot_loss(axis: Axes, stages: list[tuple[list[Row], float]]) -> None:
    """Plot the loss in training, smoothed in front of its values, and in validation."""
    for number, (rows, shift) in enumerate(stages):
        raw = np.array([(r["update"] + shift, r["distillation"]) for r in rows if "distillation" in r])
        valid = np.array([(r["update"] + shift, r["valid_loss"]) for r in rows if "valid_loss" in r])
        label = {} if number and stages[0][0] else {"training": "training", "valid": "validation"}
        if len(raw):
            axis.plot(*raw.T, color=BEFORE, linewidth=0.8)
            axis.plot(raw[:, 0], _smooth(raw[:, 1]), color=AFTER, linewidth=1.8, label=label.get("training"))
        if len(valid):
            axis.plot(*valid.T, "o--", color=CHECK, markersize=4, linewidth=1.2, label=label.get("valid"))
            axis.annotate(
                f"{valid[-1, 1]:.3f}",
                valid[-1],
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                color=CHECK,
                fontsize=9,
            )
    dress(axis, "Distillation loss")
    axis.margins(y=0.12)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the mean over about a fortieth of all values around each one."""
    window = 1 + 2 * (len(values) // 80)
    padded = np.pad(values, window // 2, mode="edge")
    return np.convolve(padded, np.full(window, 1 / window), mode="valid")


def _plot_sparsity(axis: Axes, rows: list[Row]) -> None:
    """Plot target and expected sparsity of each count, and say where they end; skipped updates have none."""
    names = list(dict.fromkeys(name for row in rows for name in row if name.startswith("sparsity")))
    for name, color in zip(names, COUNTS, strict=False):
        count = COUNT_NAMES.get(name.removeprefix("sparsity_"), name.removeprefix("sparsity_"))
        count = f"{count}, " if len(names) > 1 else ""
        for key, style, label in ((f"target_{name}", "--", "target"), (name, "-", "expected")):
            points = [(row["update"], 100 * row[key]) for row in rows if key in row]
            if points:
                text = f"{count}{label}: {points[-1][1]:.1f} % at the end"
                axis.plot(*zip(*points, strict=True), style, color=color, linewidth=1.6, label=text)
    axis.set(ylabel="%", ylim=(0, 100))
    dress(axis, "Removed by the gates")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)


def plot_units(teacher: ModelConfig, result: ModelConfig, target: Path) -> None:
    """Plot the conv channels, heads and feed-forward units of a result in front of its teacher's."""
    _save(units_figure(UnitCounts.of(result), UnitCounts.of(teacher)), target)


def _save(figure: Figure, target: Path) -> None:
    with replacing(target) as partial:
        figure.savefig(partial, dpi=120, format="png")
