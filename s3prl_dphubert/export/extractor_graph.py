"""ONNX graph of an encoder: its inputs and outputs, and all that comes before the Transformer."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from ..model import SpeechModel
from ..model.speech_model import PADDED
from .backends import FRAMES, HIDDEN, LENGTHS, PADDED_LENGTHS, WAVEFORMS
from .graph import FLOAT, INT64, Graph
from .transformer_graph import Context, layer_norm, linear, positions, transformer_layer


def build(model: SpeechModel, layers: tuple[int, ...]) -> Graph:
    """Build the graph of an encoder from waveforms (B, T) and lengths (B,) to hidden states and frames (B,).

    The statistics of GroupNorm include padding. Models with it therefore take a third input (B,): the samples
    that an utterance had with its padding before padding was cut; 0 if none was. The graph computes what
    ``extract_features`` computes in eval mode, with rewrites that are exact up to rounding: weight norm and
    the scale of attention scores are folded into weights; the statistics of the first GroupNorm come from
    the moments of the waveform (:func:`_first_layer`).

    Args:
        model: the encoder.
        layers: rising indices of the hidden states to return; layers above the last are left out.
    """
    graph, config = Graph(), model.config
    waveforms = graph.input(WAVEFORMS, FLOAT, ["B", "T"])
    lengths = graph.input(LENGTHS, INT64, ["B"])
    graph.place = "extractor"
    if config.normalize_waveform:
        waveforms = _normalise(graph, waveforms, lengths, config.normalize_eps)
    x = graph.add("Unsqueeze", waveforms, graph.ints(1))
    for index, layer in enumerate(model.feature_extractor.conv_layers):
        graph.place = f"conv.{index}"
        if isinstance(layer.layer_norm, nn.GroupNorm):
            x = _first_layer(graph, layer, x, graph.input(PADDED_LENGTHS, INT64, ["B"]))
        else:
            x = _conv_layer(graph, layer, x)
    graph.place = "projection"
    x = graph.rough("Transpose", x, perm=[0, 2, 1])
    scale = model.feature_extractor.dummy_weight
    if not bool((scale == 1).all()):
        x = graph.rough("Mul", x, graph.weight(scale))
    projection = model.encoder.feature_projection
    x = linear(graph, projection.projection, layer_norm(graph, projection.layer_norm, x))
    graph.place = "padding"
    frames = _frames(graph, lengths, model)
    context = _padding(graph, x, frames)
    x = graph.add("Mul", x, context.valid)
    _outputs(graph, model, x, context, layers)
    graph.output(frames, FRAMES, INT64, ["B"])
    return graph


def _outputs(graph: Graph, model: SpeechModel, x: str, context: Context, layers: tuple[int, ...]) -> None:
    """Add the Transformer and the outputs ``layers``; x is the feature projection's output (B, F, D)."""
    shape: list[str | int] = ["B", "F", model.config.embed_dim]
    if 0 in layers:
        graph.output(x, HIDDEN.format(0), FLOAT, shape)
    if max(layers) == 0:
        return
    transformer: Any = model.encoder.transformer
    graph.place = "positions"
    x = graph.add("Add", x, positions(graph, transformer.pos_conv_embed, x))
    if not model.config.layer_norm_first:
        x = layer_norm(graph, transformer.layer_norm, x)
    for index, layer in enumerate(transformer.layers[: max(layers)], start=1):
        x = transformer_layer(graph, layer, x, context, transformer.relative_positions)
        if index in layers:
            graph.output(x, HIDDEN.format(index), FLOAT, shape)


def _conv_layer(graph: Graph, layer: Any, x: str) -> str:
    """x (B, C_in, T_in) -> (B, C_out, T_out)."""
    conv, norm = layer.conv, layer.layer_norm
    inputs = [x, graph.weight(conv.weight)]
    if conv.bias is not None:
        inputs.append(graph.weight(conv.bias))
    y = graph.rough("Conv", *inputs, kernel_shape=list(conv.kernel_size), strides=list(conv.stride))
    if norm is not None:
        y = graph.rough("Transpose", y, perm=[0, 2, 1])
        y = layer_norm(graph, norm, y, rough=True)
        y = graph.rough("Transpose", y, perm=[0, 2, 1])
    return graph.rough("Gelu", y)


def _first_layer(graph: Graph, layer: Any, x: str, padded: str) -> str:
    """Add the first conv layer with its GroupNorm: x (B, 1, T), padded (B,) -> (B, C, F).

    A channel with weight w (K) sees windows p (K) of the waveform: its mean is w E[p], its variance
    w Cov[p] w. So K * K numbers of the waveform replace two passes over C channels, and scale and shift are
    folded into weights of each utterance. All of it stays float32: it is a hundredth of the work, and its
    rounding errors would go through all layers. Windows of padding that was cut are zero; they count, and
    deviate from the mean by the mean itself.
    """
    conv, norm = layer.conv, layer.layer_norm
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    # Windows (B, K + 1, F), the last row ones for the shift.
    rows = graph.weight(np.eye(kernel + 1)[:, None, :kernel])
    one = graph.weight(np.eye(kernel + 1)[kernel])
    windows = graph.add("Conv", x, rows, one, kernel_shape=[kernel], strides=[stride])
    last = graph.weight(np.eye(kernel + 1)[:, -1:])
    count = _windows(graph, x, padded, kernel, stride)
    cut = graph.add("Sub", count, graph.add("Cast", graph.add("Shape", windows, start=2, end=3), to=FLOAT))
    total = graph.add("ReduceSum", windows, graph.ints(-1), keepdims=1)
    mean = graph.add("Div", graph.add("Add", total, graph.add("Mul", cut, last)), count)
    centred = graph.add("Sub", windows, mean)
    covariance = _products(graph, graph.add("Div", centred, count), centred)
    deviation = graph.add("Sub", last, mean)  # of windows that were cut
    share = graph.add("Mul", deviation, graph.add("Div", cut, count))
    covariance = graph.add("Add", covariance, _products(graph, share, deviation))
    filters = np.pad(conv.weight.detach().numpy()[:, 0], ((0, 0), (0, 1)))  # (C, K + 1)
    if conv.bias is not None:
        filters[:, -1] = conv.bias.detach().numpy()
    weight = graph.weight(filters)
    variance = graph.add("Mul", graph.add("MatMul", weight, covariance), weight)
    variance = graph.add("ReduceSum", variance, graph.ints(-1), keepdims=1)  # (B, C, 1)
    spread = graph.add("Sqrt", graph.add("Add", variance, graph.weight(norm.eps)))
    scale = graph.add("Div", graph.weight(norm.weight[:, None]), spread)
    weight = graph.add("Mul", weight, scale)
    shift = graph.add("Sub", graph.weight(norm.bias[:, None]), graph.add("MatMul", weight, mean))
    weight = graph.add("Add", weight, graph.add("Mul", shift, graph.weight(np.eye(kernel + 1)[-1:])))
    return graph.add("Gelu", graph.add("MatMul", weight, windows))


def _windows(graph: Graph, x: str, padded: str, kernel: int, stride: int) -> str:
    """Count the windows of x (B, 1, T), those of padding that was cut included: padded (B,) -> (B, 1, 1)."""
    samples = graph.add("Max", padded, graph.add("Shape", x, start=2, end=3))
    steps = graph.add("Div", graph.add("Sub", samples, graph.ints(kernel - stride)), graph.ints(stride))
    return graph.add("Cast", graph.add("Unsqueeze", steps, graph.ints(1, 2)), to=FLOAT)


def _products(graph: Graph, a: str, b: str) -> str:
    """a (B, K, N), b (B, K, N) -> a bᵀ (B, K, K)."""
    return graph.add("MatMul", a, graph.add("Transpose", b, perm=[0, 2, 1]))


def _normalise(graph: Graph, waveforms: str, lengths: str, eps: float) -> str:
    """Scale (B, T) to zero mean and unit variance over the valid samples, with zeros after them."""
    samples = graph.add("Shape", waveforms, start=1, end=2)
    valid = _before(graph, samples, lengths)
    count = graph.add("Cast", graph.add("Unsqueeze", lengths, graph.ints(1)), to=FLOAT)
    axis = graph.ints(1)
    mean = graph.add(
        "Div", graph.add("ReduceSum", graph.add("Mul", waveforms, valid), axis, keepdims=1), count
    )
    centred = graph.add("Mul", graph.add("Sub", waveforms, mean), valid)
    power = graph.add("ReduceSum", graph.add("Mul", centred, centred), axis, keepdims=1)
    variance = graph.add("Add", graph.add("Div", power, count), graph.weight(eps))
    return graph.add("Div", centred, graph.add("Sqrt", variance))


def _before(graph: Graph, size: str, ends: str) -> str:
    """Return (B, size) with ones before each end (B,) and zeros from there on."""
    zero, one = graph.weight(0, np.int64), graph.weight(1, np.int64)
    index = graph.add("Range", zero, graph.add("Squeeze", size), one)
    return graph.add("Cast", graph.add("Less", index, graph.add("Unsqueeze", ends, graph.ints(1))), to=FLOAT)


def _frames(graph: Graph, lengths: str, model: SpeechModel) -> str:
    """Convert samples (B,) to frames (B,)."""
    for kernel, stride in zip(model.config.conv_kernels, model.config.conv_strides, strict=True):
        # Integer division rounds towards zero, so its argument must not be negative.
        lengths = graph.add("Max", lengths, graph.ints(kernel - stride))
        lengths = graph.add("Add", lengths, graph.ints(stride - kernel))
        lengths = graph.add("Div", lengths, graph.ints(stride))
    return lengths


def _padding(graph: Graph, x: str, frames: str) -> Context:
    """Masks for x (B, F, D) of which ``frames`` (B,) are valid."""
    valid = _before(graph, graph.add("Shape", x, start=1, end=2), frames)
    bias = graph.add("Mul", graph.add("Sub", graph.weight(1.0), valid), graph.weight(PADDED))
    return Context(
        graph.add("Unsqueeze", valid, graph.ints(2)), graph.add("Unsqueeze", bias, graph.ints(1, 2))
    )
