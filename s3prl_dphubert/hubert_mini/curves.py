"""Plot of the training of hubert_mini, from its committed logs and probes.

``python -m s3prl_dphubert.hubert_mini.curves docs/results/hubert-mini`` draws the image beside that folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import ResultError
from ..probe.probe_record import BEST_LAYER, PROBES, ProbeRecord, direction, read_all
from ..utils.files import replacing
from ..utils.plot_style import AFTER, CHECK, COUNTS, FAINT, INK, dress, png
from ..utils.readers import read_json_lines

MODEL = "hubert_mini"
RATES = {
    "unmasked": "targets of frames that are heard",
    "phones": "phones of frames that are heard",
    "masked": "targets of masked frames",
}


def plot(folder: Path) -> Figure:
    """Return the figure: accuracies over all runs one after another, and every layer in every probe.

    Args:
        folder: with ``pretraining-N.jsonl`` for each run N, and records of probes: of :data:`MODEL`, of
            states on the way to it, and of features of one layer, which are lines across.

    Raises:
        ResultError: there is no log, or a record is damaged.
    """
    runs = [list(read_json_lines(path)) for path in sorted(folder.glob("pretraining-*.jsonl"))]
    if not any(runs):
        raise ResultError(f"{folder}: holds no pretraining-N.jsonl")
    records = read_all(sorted(folder.glob("*.probe.json")))
    figure = Figure(figsize=(13.5, 6.6), layout="constrained")
    grid = figure.add_gridspec(2, 4, height_ratios=[1, 1])
    _training(figure.add_subplot(grid[0, :]), runs)
    for column, probe in enumerate(PROBES):
        _layers(figure.add_subplot(grid[1, column]), probe, records)
    return figure


def _training(axes: Axes, runs: Sequence[Sequence[dict[str, Any]]]) -> None:
    starts = [0]
    for rows in runs:
        starts.append(starts[-1] + rows[-1]["update"])
    for color, (rate, label) in zip(COUNTS, RATES.items(), strict=True):
        for start, rows in zip(starts, runs, strict=False):
            points = [(start + row["update"], row[rate]) for row in rows if rate in row]
            axes.plot(*zip(*points, strict=True), color=color, linewidth=1.3) if points else None
        axes.plot([], [], color=color, label=label)
    for number, (start, end) in enumerate(pairwise(starts), start=1):
        axes.axvline(start, color=FAINT, linewidth=0.8)
        axes.text((start + end) / 2, 1.0, f"run {number}", transform=axes.get_xaxis_transform(), ha="center",
                  va="bottom", color=INK, fontsize=9)  # fmt: skip
    axes.set(xlabel="update", ylabel="accuracy in %", ylim=(0, None), xlim=(0, starts[-1]))
    axes.legend(frameon=False, fontsize=9, loc="upper left", labelcolor=INK)
    dress(axes, "Pre-training")


def _layers(axes: Axes, probe: str, records: Sequence[ProbeRecord]) -> None:
    for record in records:
        score = record.score(probe, BEST_LAYER)
        if len(curve := record.curves.get(probe, [])) > 1:
            values, errors = ([each or 0.0 for each in column] for column in zip(*curve, strict=True))
            if record.model == MODEL:
                axes.errorbar(range(len(values)), values, yerr=errors, color=AFTER, linewidth=1.8, capsize=2)
                axes.set_xticks(range(0, len(values), 2))
            else:
                axes.plot(values, color=FAINT, linewidth=1.1)
            color = AFTER if record.model == MODEL else FAINT
            axes.annotate(record.model, (len(values) - 1, values[-1]), (5, 0), textcoords="offset points",
                          color=color, fontsize=8, va="center")  # fmt: skip
        elif score is not None:
            value = score.estimate.value
            axes.axhline(value, color=CHECK, linewidth=1.1, linestyle=":")
            axes.annotate(record.model, (0.99, value), (0, 2), xycoords=axes.get_yaxis_transform(),
                          textcoords="offset points", color=CHECK, fontsize=8, ha="right")  # fmt: skip
    axes.set(xlabel="layer")
    dress(axes, f"{probe[:1].upper()}{probe[1:]}, {'%' if direction(probe) > 0 else 'EER in %'}")


def main(argv: list[str] | None = None) -> int:
    """Draw the image; returns the exit code."""
    parser = argparse.ArgumentParser(description="Plot the training of hubert_mini.")
    parser.add_argument("folder", type=Path, help="folder of logs and records")
    folder = parser.parse_args(argv).folder
    with replacing(folder.with_suffix(".png")) as partial:
        partial.write_bytes(png(plot(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
