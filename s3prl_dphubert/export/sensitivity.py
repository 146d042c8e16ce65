"""Choice of the products to compute in 8 bits: those that lose little accuracy for the time saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from .backends import HIDDEN, WAVEFORMS, Feeds, open_session
from .graph import Graph
from .quantization import QuantizationPlan, lower, place, products

Hidden = list[list[np.ndarray]]  # batch -> hidden state -> (B, F, D)


def relative_errors(actual: Hidden, exact: Hidden) -> np.ndarray:
    """Return the mean magnitude of the error over the mean magnitude, for each of N hidden states (N,)."""
    count = len(exact[0])
    wrong, size = np.zeros(count), np.zeros(count)
    for states, references in zip(actual, exact, strict=True):
        wrong += [np.abs(a - b).sum(dtype=np.float64) for a, b in zip(states, references, strict=True)]
        size += [np.abs(b).sum(dtype=np.float64) for b in references]
    return wrong / size


def run(graph: Graph, layers: tuple[int, ...], batches: Sequence[Feeds], form: str, threads: int) -> Hidden:
    """Compute the hidden states of batches without padding."""
    session = open_session(graph.model().SerializeToString(), form, threads)
    return [[outputs[HIDDEN.format(i)] for i in layers] for outputs in map(session.run, batches)]


def worst_error(actual: Hidden, exact: Hidden) -> float:
    """Return the mean relative error of the hidden states of the utterance where it is largest."""
    return max(
        float(
            relative_errors([[state[row] for state in states]], [[state[row] for state in references]]).mean()
        )
        for states, references in zip(actual, exact, strict=True)
        for row in range(len(references[0]))
    )


def choose(
    graph: Graph,
    plan: QuantizationPlan,
    layers: tuple[int, ...],
    batches: Sequence[Feeds],
    limit: float,
    form: str,
    threads: int,
) -> tuple[list[str], dict[str, float]]:
    """Put as many places into 8 bits as the mean relative error of the hidden states allows.

    Every place is tried alone. Then they are added in the order of squared error per multiplication, as long
    as the sum of squares stays below the square of the limit, since errors of different places are
    independent. Finally their joint error is measured, and the last ones are dropped while it is too large.

    Args:
        graph: graph in float32.
        plan: ranges, and the precision of everything else.
        layers: indices of the hidden states of the graph.
        batches: inputs without padding, each of which has to stay below the limit.
        limit: maximum of :func:`worst_error`.
        form: runtime, ``onnx`` or ``openvino``.
        threads: number of threads of the runtime.

    Returns:
        The places, those with most multiplications for their error first, and place -> error that it causes
        alone.
    """
    exact = run(graph, layers, batches, form, threads)

    def error(places: frozenset[str]) -> float:
        lowered = lower(graph, replace(plan, int8=places))
        return worst_error(run(lowered, layers, batches, form, threads), exact)

    work = multiplications(graph, batches[0][WAVEFORMS].shape[1])
    base = error(frozenset())
    alone = {
        name: error(frozenset([name]))
        for name in tqdm(work, desc="sensitivity", unit="place", mininterval=0.5)
    }
    added = {name: max(value**2 - base**2, 0.0) for name, value in alone.items()}
    return _largest(added, work, base, limit, error), alone


def _largest(
    added: dict[str, float],
    work: dict[str, float],
    base: float,
    limit: float,
    error: Callable[[frozenset[str]], float],
) -> list[str]:
    """Choose places by their squared errors and multiplications, as :func:`choose` describes."""
    total, chosen = base**2, []
    for name in sorted(added, key=lambda name: added[name] / work[name]):
        if total + added[name] <= limit**2:
            total += added[name]
            chosen.append(name)
    while chosen and error(frozenset(chosen)) > limit:
        chosen.pop()
    return chosen


def multiplications(graph: Graph, samples: int) -> dict[str, float]:
    """Count the multiplications with weights at each place, for a waveform of that many samples."""
    work: dict[str, float] = {}
    positions = float(samples)
    for node in products(graph):
        name, weight = place(node), graph.weights[node.input[1]]
        strides = next((item.ints for item in node.attribute if item.name == "strides"), [1])
        positions /= strides[0]
        work[name] = work.get(name, 0.0) + positions * weight.size
    return work
