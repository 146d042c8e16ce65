"""What numbers the values of a graph take on real speech, and which of them 8 bits should tell apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor
from tqdm import tqdm

from .backends import feeds_of, open_session
from .graph import Graph
from .quantization import Range

SAMPLES = 4096  # of a value that are kept of an utterance
CUTS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
"""Shares of the largest magnitude that a range may end at."""


def measure(
    graph: Graph, values: Iterable[str], speech: list[Tensor], form: str, threads: int
) -> dict[str, Range]:
    """The range of each value that costs least.

    A range that reaches as far as the largest number wastes its steps, since speech is loud for moments
    only; one that ends before cuts those moments off. Conv layers' values are weighed by the mean magnitude
    of what rounding and cutting change: a LayerNorm behind them makes quiet frames count as much as loud
    ones. Inside the Transformer it is the mean square, for a few large units carry much there.

    Args:
        graph: in float32.
        values: names of float values in it.
        speech: waveforms (1, T).
        form: runtime.
        threads: of it.
    """
    names = list(values)
    session = open_session(graph.model(watched=names).SerializeToString(), form, threads)
    seen: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for waveform in tqdm(speech, desc="calibrate", unit="utterance", mininterval=0.5):
        found = session.run(feeds_of(waveform.numpy()))
        for name in names:
            numbers = found[name].reshape(-1)
            extremes = [numbers.min(), numbers.max()]
            seen[name].append(np.append(numbers[:: max(1, len(numbers) // SAMPLES)], extremes))
    return {
        name: best(np.concatenate(numbers), 1 if name.startswith("conv.") else 2)
        for name, numbers in seen.items()
    }


def best(numbers: np.ndarray, power: int) -> Range:
    """The range that changes these numbers (N,) least, by the mean of that power of the changes."""
    low, high = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    reach = max(-low, high)
    ranges = [Range(max(low, -cut * reach), min(high, cut * reach)) for cut in CUTS]
    return min(ranges, key=lambda bounds: _cost(numbers, bounds, power))


def _cost(numbers: np.ndarray, bounds: Range, power: int) -> float:
    scale, zero = float(bounds.scale), float(bounds.zero)
    codes = np.clip(np.round(numbers / scale) + zero, 0, 255)
    return float((np.abs((codes - zero) * scale - numbers) ** power).mean())
