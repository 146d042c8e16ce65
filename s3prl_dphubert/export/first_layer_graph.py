"""ONNX graph of the first conv layer with its GroupNorm.

OpenVINO computes in bfloat16 unless it is told otherwise, but for nodes that the exporter marks, and its
optimisations make new nodes, without marks, of ``Sub``, ``Div``, products by numbers, transposed factors and
factors of two axes. The statistics, whose rounding errors would be magnified by differences of nearly equal
numbers, are therefore written without these.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import FLOAT, Graph

TINY = 1e-12  # added to the energy of windows, so that silence has a crest of 1


def first_layer(graph: Graph, layer: Any, x: str, given: str) -> str:
    """Add the first conv layer with its GroupNorm: x (B, 1, T) -> (B, C, F).

    Scale and shift of the norm follow from mean and covariance of the windows of x (see
    :mod:`.window_statistics`), so K * K numbers of the waveform replace two passes over C channels. They are
    folded into weights of each utterance. All of it stays float32: it is a hundredth of the work, and its
    rounding errors would go through all layers.

    Args:
        graph: receives the nodes, and the values in :attr:`.Graph.crest`.
        layer: convolution and GroupNorm.
        x: waveforms.
        given: statistics (B, K + 1, K) of whole utterances; those that are all 0 are computed from x.
    """
    conv, norm = layer.conv, layer.layer_norm
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    rows = graph.weight(np.eye(kernel)[:, None])
    windows = graph.add("Conv", x, rows, kernel_shape=[kernel], strides=[stride])  # (B, K, F)
    covariance, mean, count, centred = _statistics(graph, windows, given, kernel)
    weight = graph.weight(conv.weight[:, 0][None])  # (1, C, K)
    variance = graph.add("Mul", graph.add("MatMul", weight, covariance), weight)
    variance = graph.add("ReduceSum", variance, graph.ints(-1), keepdims=1)  # (B, C, 1)
    variance = graph.add("Div", graph.add("Max", variance, graph.weight(0.0)), count)
    spread = graph.add("Sqrt", graph.add("Add", variance, graph.weight(norm.eps)))
    gain = graph.weight(np.diag(norm.weight.detach().numpy())[None])
    scale = graph.add("MatMul", gain, graph.add("Div", graph.weight(1.0), spread))
    # GroupNorm takes the bias of the convolution away with the mean.
    shift = graph.add("Mul", graph.add("MatMul", weight, mean), scale)
    shift = graph.add("Sub", graph.weight(norm.bias[:, None]), shift)
    _crest(graph, centred, covariance, count, kernel)
    y = graph.add("MatMul", graph.add("Mul", weight, scale), windows)
    return graph.add("Gelu", graph.add("Add", y, shift))


def _statistics(graph: Graph, windows: str, given: str, kernel: int) -> tuple[str, str, str, str]:
    """Return covariance * count (B, K, K), mean (B, K, 1), count (B, 1, 1), centred windows (B, K, F)."""
    largest = graph.add("ReduceMax", graph.add("Abs", given), graph.ints(1, 2), keepdims=1)
    is_given = graph.add("Greater", largest, graph.weight(0.0))  # (B, 1, 1)
    last = graph.ints(kernel), graph.ints(kernel + 1), graph.ints(1)
    given_mean = graph.add("Transpose", graph.add("Slice", given, *last), perm=[0, 2, 1])
    given_covariance = graph.add("Slice", given, graph.ints(0), graph.ints(kernel), graph.ints(1))
    mean = graph.add("ReduceMean", windows, graph.ints(-1), keepdims=1)
    mean = graph.add("Where", is_given, given_mean, mean)
    negative = graph.add("MatMul", graph.weight(-np.eye(kernel)[None]), mean)
    centred = graph.add("Add", windows, negative)
    parts = (graph.add("Transpose", value, perm=[0, 2, 1]) for value in (windows, negative))
    covariance = graph.add("MatMul", centred, graph.add("Add", *parts))
    covariance = graph.add("Where", is_given, given_covariance, covariance)
    frames = graph.add("Cast", graph.add("Shape", windows, start=2, end=3), to=FLOAT)
    count = graph.add("Where", is_given, graph.weight(1.0), frames)
    return covariance, mean, count, centred


def _crest(graph: Graph, centred: str, covariance: str, count: str, kernel: int) -> None:
    """Set :attr:`.Graph.crest`: root of the energy-weighted mean energy of windows over their mean."""
    energies = graph.add("ReduceSumSquare", centred, graph.ints(1), keepdims=1)  # (B, 1, F)
    total = graph.add("ReduceSum", energies, graph.ints(-1), keepdims=1)
    squares = graph.add("ReduceSumSquare", energies, graph.ints(-1), keepdims=1)
    tiny = graph.weight(TINY)
    typical = graph.add("Div", squares, graph.add("Add", total, tiny))
    diagonal = graph.add("Mul", covariance, graph.weight(np.eye(kernel)[None]))
    mean = graph.add("Div", graph.add("ReduceSum", diagonal, graph.ints(1, 2), keepdims=1), count)
    ratio = graph.add("Div", graph.add("Add", typical, tiny), graph.add("Add", mean, tiny))
    crest = graph.add("Sqrt", ratio)
    graph.crest = crest, graph.add("Div", graph.weight(1.0), crest)
