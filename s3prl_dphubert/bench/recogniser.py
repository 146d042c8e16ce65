"""Benchmark of an update of s3prl's recogniser on the CPU, with torch's packed LSTM and with the padded one.

``python -m s3prl_dphubert.bench.recogniser`` times forward and backward pass of the two bidirectional layers
that ASR and SF train, in turns, by CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .. import compat
from ..utils.markdown import table as markdown_table

SHAPES = ((16, 110, 256), (4, 600, 1024))
"""Utterances, frames and units: FreeSUPERB's, and SUPERB's with fewer utterances."""


def recognisers(units: int) -> dict[str, Any]:
    """Return s3prl's recogniser with equal weights, as torch and as this package computes it."""
    compat.apply()
    from s3prl.downstream.asr.model import RNNs

    flags = [False, False]
    padded = RNNs(
        units, 31, 320, "LSTM", True, [units] * 2, [0.2] * 2, flags, flags, [1, 1], "concat", total_rate=-1
    )
    packed = copy.deepcopy(padded)
    for layer in packed.rnns:
        layer.layer.__class__ = nn.LSTM
    return {"packed": packed, "padded": padded}


def seconds(model: nn.Module, utterances: int, frames: int, units: int) -> float:
    """Return the CPU seconds of one forward and backward pass; lengths are 0.6 to 1 times the frames."""
    inputs = torch.randn(utterances, frames, units, requires_grad=True)
    lengths = torch.linspace(0.6 * frames, frames, utterances).long()
    began = time.process_time()
    model(inputs, lengths)[0].sum().backward()
    return time.process_time() - began


def table(shapes: Sequence[tuple[int, int, int]], repeats: int) -> str:
    """Tabulate the seconds of both, and the median ratio with its range over the turns, in Markdown."""
    rows = []
    for shape in shapes:
        models = recognisers(shape[-1])
        turns = [[seconds(model, *shape) for model in models.values()] for _ in range(repeats + 1)][1:]
        ratios = [padded / packed for packed, padded in turns]
        medians = [f"{statistics.median(column):.2f}" for column in zip(*turns, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        rows.append([" × ".join(map(str, shape)), *medians, ratio])
    return markdown_table(["utterances × frames × units", "packed, s", "padded, s", "ratio (range)"], rows)


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.bench.recogniser", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="turns after the first (default 3)")
    repeats = parser.parse_args(argv).repeats
    torch.set_num_threads(1)
    print(table(SHAPES, repeats))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
