"""ONNX graph of the Transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..model.transformer import (
    Attention,
    FeedForward,
    OutputBias,
    PositionalStack,
    RelativePositions,
    TransformerLayer,
)
from .blocked_attention_graph import PositionBias, attention_in_blocks
from .graph import Graph


@dataclass(frozen=True)
class Context:
    """Padding masks that all layers share.

    Args:
        valid: (B, F, 1), 1 for valid frames and 0 for padding.
        bias: (B, 1, 1, F), added to the attention scores.
        blocks: compute scores for some queries at a time.
    """

    valid: str
    bias: str
    blocks: bool


def linear(graph: Graph, layer: nn.Linear, x: str, scale: float = 1.0) -> str:
    """x (..., D_in) -> (..., D_out), with weight and bias multiplied by ``scale``."""
    y = graph.rough("MatMul", x, graph.weight(layer.weight.T * scale))
    return graph.rough("Add", y, graph.weight(layer.bias * scale))


def layer_norm(graph: Graph, norm: nn.LayerNorm, x: str, rough: bool = False) -> str:
    """x (..., D) -> (..., D)."""
    add = graph.rough if rough else graph.add
    weights = graph.weight(norm.weight), graph.weight(norm.bias)
    return add("LayerNormalization", x, *weights, epsilon=norm.eps, axis=-1)


def positions(graph: Graph, block: Any, x: str) -> str:
    """Positional convolutions: x (B, F, D) -> (B, F, D)."""
    if isinstance(block, PositionalStack):
        for layer in block.layers:
            x = _positional_layer(graph, layer, x)
        return x
    conv = block.conv
    if block.batch_norm is not None:
        x = graph.add("Mul", x, graph.weight(block.batch_norm.weight))
        x = graph.add("Add", x, graph.weight(block.batch_norm.bias))
    return graph.rough("Gelu", _same_conv(graph, conv.weight(), conv.bias, conv.groups, x))


def _positional_layer(graph: Graph, layer: Any, x: str) -> str:
    y = _same_conv(graph, layer.conv.weight, layer.conv.bias, layer.conv.groups, x)
    width = len(layer.conv.bias)
    weights = graph.weight(np.ones(width)), graph.weight(np.zeros(width))
    return graph.rough("Gelu", graph.rough("LayerNormalization", y, *weights, epsilon=1e-5, axis=-1))


def _same_conv(graph: Graph, weight: torch.Tensor, bias: torch.Tensor, groups: int, x: str) -> str:
    """x (B, F, D) -> (B, F, D); an even kernel gets one frame of padding less at the end."""
    # Fast kernels in low precision need groups of a multiple of 16 channels.
    add = graph.add if weight.shape[1] % 16 else graph.rough
    kernel = weight.shape[-1]
    x = add("Transpose", x, perm=[0, 2, 1])
    pads = [kernel // 2, (kernel - 1) // 2]
    inputs = (x, graph.weight(weight), graph.weight(bias))
    y = add("Conv", *inputs, kernel_shape=[kernel], pads=pads, group=groups)
    return add("Transpose", y, perm=[0, 2, 1])


def transformer_layer(
    graph: Graph, layer: TransformerLayer, x: str, context: Context, relative: RelativePositions | None
) -> str:
    """x (B, F, D) -> (B, F, D)."""
    first = layer.layer_norm_first
    if layer.attention is not None:
        graph.place = f"layers.{layer.index}.attention"
        inner = layer_norm(graph, layer.layer_norm, x) if first else x
        x = graph.add("Add", x, attention(graph, layer.attention, inner, context, relative))
    if not first:
        x = layer_norm(graph, layer.layer_norm, x)
    if layer.feed_forward is not None:
        graph.place = f"layers.{layer.index}.feed_forward"
        inner = layer_norm(graph, layer.final_layer_norm, x) if first else x
        x = graph.add("Add", x, feed_forward(graph, layer.feed_forward, inner))
    if layer.adapter is not None:
        graph.place = f"layers.{layer.index}.adapter"
        inner = linear(graph, layer.adapter.linear_1, layer_norm(graph, layer.adapter.norm, x))
        x = graph.add("Add", x, linear(graph, layer.adapter.linear_2, graph.rough("Relu", inner)))
    return x if first else layer_norm(graph, layer.final_layer_norm, x)


def feed_forward(graph: Graph, block: FeedForward, x: str) -> str:
    """x (B, F, D) -> (B, F, D), or what broadcasts to it."""
    if isinstance(block.output_dense, OutputBias):
        return graph.weight(block.output_dense.bias)
    return linear(graph, block.output_dense, graph.rough("Gelu", linear(graph, block.intermediate_dense, x)))


def attention(
    graph: Graph, block: Attention, x: str, context: Context, relative: RelativePositions | None
) -> str:
    """x (B, F, D) -> (B, F, D), or what broadcasts to it."""
    if isinstance(block.out_proj, OutputBias):
        return graph.weight(block.out_proj.bias)
    shape = graph.ints(0, 0, len(block.heads), block.head_dim)

    def heads(layer: nn.Linear, perm: list[int], scale: float = 1.0) -> str:
        y = graph.rough("Reshape", linear(graph, layer, x, scale), shape)
        return graph.rough("Transpose", y, perm=perm)

    q = heads(block.q_proj, [0, 2, 1, 3], block.head_dim**-0.5)
    k, v = heads(block.k_proj, [0, 2, 3, 1]), heads(block.v_proj, [0, 2, 1, 3])
    positions = None
    if block.gated and relative is not None:
        positions = PositionBias(_gate(graph, block, x), *_distances(graph, relative, block.heads))
    width = len(block.heads) * block.head_dim
    if context.blocks:
        y = attention_in_blocks(graph, q, k, v, context.bias, positions, width)
    else:
        bias = context.bias
        if positions is not None:
            frames = graph.add("Squeeze", graph.add("Shape", x, start=1, end=2))
            every = graph.add("Range", graph.weight(0, np.int64), frames, graph.weight(1, np.int64))
            bias = graph.rough("Add", positions.rows(graph, positions.gate, every, every), bias)
        scores = graph.rough("Softmax", graph.rough("Add", graph.rough("MatMul", q, k), bias), axis=-1)
        y = graph.rough("Transpose", graph.rough("MatMul", scores, v), perm=[0, 2, 1, 3])
        y = graph.rough("Reshape", y, graph.ints(0, 0, width))
    return linear(graph, block.out_proj, y)


def _gate(graph: Graph, block: Attention, x: str) -> str:
    """Gates of WavLM's relative positions: x (B, F, D) -> (B, H, F, 1)."""
    heads = list(block.heads)
    split = graph.add("Reshape", x, graph.ints(0, 0, block.gru_rel_pos_const.shape[1], block.head_dim))
    split = graph.add("Gather", split, graph.weight(heads, np.int64), axis=2)
    split = graph.add("Transpose", split, perm=[0, 2, 1, 3])
    # Each of the two gates is a sum of four outputs, which the sums of their weights give directly.
    weight = block.gru_rel_pos_linear.weight.unflatten(0, (2, 4)).sum(1)
    bias = block.gru_rel_pos_linear.bias.unflatten(0, (2, 4)).sum(1)
    gates = graph.add("Add", graph.add("MatMul", split, graph.weight(weight.T)), graph.weight(bias))
    gates = graph.add("Sigmoid", gates)
    a, b = (graph.add("Slice", gates, *map(graph.ints, (i, i + 1, 3))) for i in (0, 1))
    const = block.gru_rel_pos_const[:, heads]
    inner = graph.add("Sub", graph.add("Mul", b, graph.weight(const)), graph.weight(1.0))
    return graph.add("Add", graph.add("Mul", a, inner), graph.weight(2.0))


def _distances(graph: Graph, relative: RelativePositions, heads: Sequence[int]) -> tuple[str, int]:
    """Return biases (H, N) of all distances that have biases of their own, and the farthest of them."""
    far = relative.max_distance
    # Row ``far`` of the square of all positions holds the distances -far to far.
    row = relative.buckets(2 * far + 1, relative.rel_attn_embed.weight.device)[far]
    return graph.weight(relative.rel_attn_embed.weight[row][:, list(heads)].T), far
