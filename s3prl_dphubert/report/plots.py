"""Draw a run: loss and sparsity over time, and the units that are kept."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np

from ..files import replacing
from ..model import ModelConfig

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TEACHER, KEPT, TARGET = "#c9d3dd", "#1f6f8b", "#d1495b"


def read_log(folder: Path) -> list[dict[str, float]]:
    """Rows of a stage's ``log.jsonl``."""
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    return [json.loads(row) for row in path.read_text(encoding="utf8").splitlines()]


def plot_training(run: Path, target: Path) -> None:
    """Loss of both stages, and the sparsity of stage 1 with its target."""
    first, second = read_log(run / "stage1"), read_log(run / "stage2")
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
    offset = first[-1]["update"] if first else 0
    for rows, shift, label in ((first, 0, "stage 1"), (second, offset, "stage 2")):
        for key, style in (("distillation", "-"), ("valid_loss", "o--")):
            points = [(row["update"] + shift, row[key]) for row in rows if key in row]
            if points:
                name = f"{label}, {'training' if key == 'distillation' else 'validation'}"
                top.plot(*zip(*points, strict=True), style, label=name, markersize=3)
    top.set_ylabel("distillation loss")
    top.legend()
    updates = [row["update"] for row in first]
    names = [name for name in (first[0] if first else {}) if name.startswith("sparsity")]
    for name, style in zip(names, ("-", "-.", ":"), strict=False):
        count = name.removeprefix("sparsity_") if len(names) > 1 else ""
        for key, color, label in ((f"target_{name}", TARGET, "target"), (name, KEPT, "expected")):
            dashed = "--" if label == "target" else style
            bottom.plot(updates, [row[key] for row in first], dashed, color=color, label=f"{label} {count}")
    bottom.axvline(offset, color="grey", linewidth=0.8)
    bottom.set(xlabel="update", ylabel="sparsity", ylim=(-0.05, 1))
    bottom.legend()
    _save(figure, target)


def plot_units(teacher: ModelConfig, kept: ModelConfig, target: Path) -> None:
    """Bars of the conv channels, heads and feed-forward units of teacher and result."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    panels = (
        ("conv channels", teacher.conv_channels, kept.conv_channels),
        ("attention heads", [len(h or ()) for h in teacher.heads], [len(h or ()) for h in kept.heads]),
        ("feed-forward units", [f or 0 for f in teacher.ffn], [f or 0 for f in kept.ffn]),
    )
    for axis, (title, full, small) in zip(axes, panels, strict=True):
        layers = np.arange(1, len(full) + 1)
        axis.bar(layers, full, color=TEACHER, label="teacher")
        axis.bar(layers, small, color=KEPT, label="kept")
        axis.set(title=title, xlabel="layer", xticks=layers)
    axes[0].legend(loc="lower right")
    _save(figure, target)


def _save(figure: plt.Figure, target: Path) -> None:
    with replacing(target) as partial:
        figure.savefig(partial, dpi=120, format="png")
    plt.close(figure)
