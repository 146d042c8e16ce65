"""Plots of a run: loss and sparsity over time, and the units that remain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..model import ModelConfig
from ..utils.config_io import is_number
from ..utils.files import replacing
from ..utils.readers import read_json_lines

TEACHER, KEPT, TARGET = "#c9d3dd", "#1f6f8b", "#d1495b"


def read_log(folder: Path) -> list[dict[str, float]]:
    """Return the rows of a stage's ``log.jsonl`` that can be read."""
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    return [
        row
        for row in read_json_lines(path)
        if all(is_number(value) for value in row.values()) and "update" in row
    ]


def plot_training(run: Path, target: Path) -> None:
    """Plot the loss of both stages, and the sparsity of stage 1 beside its target."""
    first, second = read_log(run / "stage1"), read_log(run / "stage2")
    panels = 2 if first else 1
    figure = Figure(figsize=(8, 3 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)
    top = axes[0, 0]
    offset = first[-1]["update"] if first else 0
    for rows, shift, label in ((first, 0, "stage 1"), (second, offset, "stage 2")):
        for key, style in (("distillation", "-"), ("valid_loss", "o--")):
            points = [(row["update"] + shift, row[key]) for row in rows if key in row]
            if points:
                name = f"{label}, {'training' if key == 'distillation' else 'validation'}"
                top.plot(*zip(*points, strict=True), style, label=name, markersize=3)
    top.set_ylabel("distillation loss")
    if top.has_data():
        top.legend()
    if first:
        _plot_sparsity(axes[1, 0], first)
    axes[-1, 0].set_xlabel("update")
    _save(figure, target)


def _plot_sparsity(axis: Axes, rows: list[dict[str, float]]) -> None:
    """Plot target and expected sparsity of each count, and say where they end; skipped updates have none."""
    names = list(dict.fromkeys(name for row in rows for name in row if name.startswith("sparsity")))
    for name, style in zip(names, ("-", "-.", ":"), strict=False):
        count = name.removeprefix("sparsity_") if len(names) > 1 else ""
        for key, color, label in ((f"target_{name}", TARGET, "target"), (name, KEPT, "expected")):
            dashed = "--" if label == "target" else style
            points = [(row["update"], row[key]) for row in rows if key in row]
            if points:
                name_and_end = f"{label} {count}".strip() + f", {points[-1][1]:.3f} at the end"
                axis.plot(*zip(*points, strict=True), dashed, color=color, label=name_and_end)
    axis.axvline(rows[-1]["update"], color="grey", linewidth=0.8)
    axis.set(ylabel="sparsity", ylim=(-0.05, 1))
    axis.legend()


def plot_units(teacher: ModelConfig, result: ModelConfig, target: Path) -> None:
    """Plot the conv channels, heads and feed-forward units of teacher and result as bars."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("conv channels", teacher.conv_channels, result.conv_channels),
        ("attention heads", [len(h or ()) for h in teacher.heads], [len(h or ()) for h in result.heads]),
        ("feed-forward units", [f or 0 for f in teacher.ffn], [f or 0 for f in result.ffn]),
    )
    for axis, (title, full, small) in zip(axes, panels, strict=True):
        layers = np.arange(1, len(full) + 1)
        axis.bar(layers, full, color=TEACHER, label="teacher")
        axis.bar(layers[: len(small)], small, color=KEPT, label="kept")
        axis.set(title=title, xlabel="layer", xticks=layers)
    axes[0].legend(loc="lower right")
    _save(figure, target)


def _save(figure: Figure, target: Path) -> None:
    with replacing(target) as partial:
        figure.savefig(partial, dpi=120, format="png")
