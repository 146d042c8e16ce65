"""ONNX graph of an encoder: its inputs and outputs, and all that comes before the Transformer."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from ..model import SpeechModel
from ..model.speech_model import PADDED
from .backends import EARLIER, FEATURES, FRAMES, HIDDEN, LENGTHS, LEVEL, STATISTICS, WAVEFORMS
from .first_layer_graph import first_layer
from .graph import FLOAT, INT64, Graph
from .transformer_graph import Context, layer_norm, linear, positions, transformer_layer


def build(model: SpeechModel, layers: tuple[int, ...], blocks: bool = False) -> Graph:
    """Build the graph of an encoder from waveforms (B, T) and lengths (B,) to hidden states and frames (B,).

    The convolutions of long audio can be computed piece by piece, for which a graph has further inputs. All
    of them may be empty or 0, and then change nothing:

    - ``earlier`` (B, E, D): the output ``features`` of the frames before, which get into all hidden states;
    - ``statistics`` (B, K + 1, K), in models with GroupNorm, which normalises over a whole utterance with its
      padding: see :mod:`.window_statistics`;
    - ``level`` (B, 2), in models that normalise waveforms: mean and variance of the whole utterance.

    The graph computes what ``extract_features`` computes in eval mode, with rewrites that are exact up to
    rounding: weight norm and the scale of attention scores are folded into weights.

    Args:
        model: the encoder.
        layers: rising indices of the hidden states to return; layers above the last are left out.
        blocks: compute attention in blocks, so that memory does not grow with the square of the length.
    """
    graph, config = Graph(), model.config
    waveforms = graph.input(WAVEFORMS, FLOAT, ["B", "T"])
    lengths = graph.input(LENGTHS, INT64, ["B"])
    waveforms, lengths = _within_bounds(graph, waveforms, lengths, config.min_samples)
    graph.place = "extractor"
    if config.normalize_waveform:
        level = graph.input(LEVEL, FLOAT, ["B", 2])
        waveforms = _normalise(graph, waveforms, lengths, level, config.normalize_eps)
    x = graph.add("Unsqueeze", waveforms, graph.ints(1))
    for index, layer in enumerate(model.feature_extractor.conv_layers):
        graph.place = f"conv.{index}"
        if isinstance(layer.layer_norm, nn.GroupNorm):
            kernel = config.conv_kernels[0]
            x = first_layer(graph, layer, x, graph.input(STATISTICS, FLOAT, ["B", kernel + 1, kernel]))
        else:
            x = _conv_layer(graph, layer, x)
    graph.place = "projection"
    x = graph.rough("Transpose", x, perm=[0, 2, 1])
    scale = model.feature_extractor.dummy_weight
    if not bool((scale == 1).all()):
        x = graph.rough("Mul", x, graph.weight(scale))
    projection = model.encoder.feature_projection
    if projection.layer_norm is not None:
        x = layer_norm(graph, projection.layer_norm, x)
    x = linear(graph, projection.projection, x)
    graph.place = "padding"
    earlier = graph.input(EARLIER, FLOAT, ["B", "E", config.embed_dim])
    x = graph.add("Concat", earlier, x, axis=1)
    frames = _frames(graph, lengths, model)
    frames = graph.add("Add", frames, graph.add("Shape", earlier, start=1, end=2))
    context = _padding(graph, x, frames, blocks)
    x = graph.add("Mul", x, context.valid)
    graph.output(x, FEATURES, FLOAT, ["B", "F", config.embed_dim])
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


def _within_bounds(graph: Graph, waveforms: str, lengths: str, least: int) -> tuple[str, str]:
    """Give waveforms (B, T) at least the samples of one frame, and lengths (B,) values from 0 to T.

    Graphs cannot refuse inputs: with one thread OpenVINO loses every error and returns the states of the
    request before. What is too short gets silence and has 0 valid frames.
    """
    graph.place = "inputs"
    samples = graph.add("Shape", waveforms, start=1, end=2)
    missing = graph.add("Max", graph.add("Sub", graph.ints(least), samples), graph.ints(0))
    size = graph.add("Concat", graph.add("Shape", waveforms, start=0, end=1), missing, axis=0)
    silence = graph.add("Expand", graph.weight([[0.0]]), size)
    lengths = graph.add("Min", graph.add("Max", lengths, graph.ints(0)), samples)
    # Pad would do, but OpenVINO makes another node of it, without the mark of the exporter.
    return graph.add("Concat", waveforms, silence, axis=1), lengths


def _normalise(graph: Graph, waveforms: str, lengths: str, level: str, eps: float) -> str:
    """Scale (B, T) to zero mean and unit variance over the valid samples, with zeros after them.

    Args:
        graph: receives the nodes.
        waveforms: (B, T).
        lengths: (B,) valid samples.
        level: (B, 2) mean and variance of whole utterances; those that are 0 are computed from the waveforms.
        eps: added to the variance.
    """
    samples = graph.add("Shape", waveforms, start=1, end=2)
    valid = _before(graph, samples, lengths)
    count = graph.add("Max", graph.add("Unsqueeze", lengths, graph.ints(1)), graph.ints(1))
    count = graph.add("Cast", count, to=FLOAT)
    axis = graph.ints(1)
    largest = graph.add("ReduceMax", graph.add("Abs", level), axis, keepdims=1)
    is_given = graph.add("Greater", largest, graph.weight(0.0))  # (B, 1)
    given_mean, given_variance = (
        graph.add("Slice", level, graph.ints(index), graph.ints(index + 1), axis) for index in (0, 1)
    )
    total = graph.add("ReduceSum", graph.add("Mul", waveforms, valid), axis, keepdims=1)
    mean = graph.add("Where", is_given, given_mean, graph.add("Div", total, count))
    centred = graph.add("Mul", graph.add("Sub", waveforms, mean), valid)
    power = graph.add("ReduceSumSquare", centred, axis, keepdims=1)
    variance = graph.add("Where", is_given, given_variance, graph.add("Div", power, count))
    spread = graph.add("Sqrt", graph.add("Add", variance, graph.weight(eps)))
    return graph.add("Div", centred, spread)


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


def _padding(graph: Graph, x: str, frames: str, blocks: bool) -> Context:
    """Masks for x (B, F, D) of which ``frames`` (B,) are valid."""
    valid = _before(graph, graph.add("Shape", x, start=1, end=2), frames)
    bias = graph.add("Mul", graph.add("Sub", graph.weight(1.0), valid), graph.weight(PADDED))
    valid, bias = graph.add("Unsqueeze", valid, graph.ints(2)), graph.add("Unsqueeze", bias, graph.ints(1, 2))
    return Context(valid, bias, blocks)
