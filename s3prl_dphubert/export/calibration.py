"""Calibration: the ranges of a graph's values on real speech that 8 bits should cover."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from tqdm import tqdm

from .backends import Feeds, open_session
from .graph import Graph
from .quantization import Range, has_crest, products

SAMPLES = 4096  # numbers of a value that are sampled from an utterance
CUTS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
"""Shares of the largest magnitude at which a range may end."""


def measure(
    graph: Graph, values: Iterable[str], batches: Sequence[Feeds], form: str, threads: int
) -> dict[str, Range]:
    """Find the range of each value that loses least by rounding and clipping.

    A range up to the largest number wastes its steps, since speech is only loud for moments; a smaller one
    clips those moments. Values of conv layers are judged by the mean magnitude of the change, since a
    LayerNorm after them makes quiet frames count as much as loud ones; those inside the Transformer by the
    mean square, since a few large units carry much there.

    Args:
        graph: graph in float32.
        values: names of float values of the graph; those beside convolutions are divided by its crest.
        batches: inputs.
        form: runtime, ``onnx`` or ``openvino``.
        threads: number of threads of the runtime.

    Returns:
        Name of the value -> range.
    """
    names = list(values)
    crest = [graph.crest[0]] if graph.crest else []
    even = {value for node in products(graph) if has_crest(node) for value in (node.input[0], *node.output)}
    session = open_session(graph.model(watched=names + crest).SerializeToString(), form, threads)
    sampled: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for feeds in tqdm(batches, desc="calibrate", unit="utterance", mininterval=0.5):
        outputs = session.run(feeds)
        for name in names:
            numbers = outputs[name] / outputs[crest[0]] if crest and name in even else outputs[name]
            numbers = numbers.reshape(-1)
            extremes = [numbers.min(), numbers.max()]
            sampled[name].append(np.append(numbers[:: max(1, len(numbers) // SAMPLES)], extremes))
    return {
        name: best_range(np.concatenate(numbers), 1 if name.startswith("conv.") else 2)
        for name, numbers in sampled.items()
    }


def best_range(numbers: np.ndarray, power: int) -> Range:
    """Return the range that changes numbers (N,) least, by the mean of that power of the changes."""
    low, high = min(float(numbers.min()), 0.0), max(float(numbers.max()), 0.0)
    reach = max(-low, high)
    ranges = [Range(max(low, -cut * reach), min(high, cut * reach)) for cut in CUTS]
    return min(ranges, key=lambda bounds: _cost(numbers, bounds, power))


def _cost(numbers: np.ndarray, bounds: Range, power: int) -> float:
    scale, zero = float(bounds.scale), float(bounds.zero)
    codes = np.clip(np.round(numbers / scale) + zero, 0, 255)
    return float((np.abs((codes - zero) * scale - numbers) ** power).mean())
