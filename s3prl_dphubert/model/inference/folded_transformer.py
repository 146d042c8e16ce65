"""Transformer layers over packed frames, for inference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..packing import Packing
from ..transformer import Attention, FeedForward, TransformerLayer
from .folded_extractor import gelu_

ALIGN = 16  # MKL needs half the time for float32 matrices whose rows start at multiples of it


@dataclass(frozen=True)
class Linear:
    """A linear map in some type.

    Args:
        weight: (outputs, inputs).
        bias: (outputs,).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, dtype: torch.dtype, *layers: nn.Linear, rows: int = 0, columns: int = 0) -> Linear:
        """Several maps of the same inputs in one, filled up with zeros to so many outputs and inputs."""
        weight, bias = layers[0].weight.detach(), layers[0].bias.detach()
        if len(layers) > 1:
            weight = torch.cat([layer.weight.detach() for layer in layers])
            bias = torch.cat([layer.bias.detach() for layer in layers])
        more, wider = rows - len(weight), columns - weight.shape[1]
        if more > 0 or wider > 0:
            weight = F.pad(weight, (0, max(0, wider), 0, max(0, more)))
            bias = F.pad(bias, (0, max(0, more)))
        return cls(weight.to(dtype), bias.to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, inputs) of any type -> (N, outputs) in the map's type."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class FoldedLayer:
    """A :class:`TransformerLayer` over packed frames."""

    def __init__(self, layer: TransformerLayer, dtype: torch.dtype) -> None:
        self.layer_norm_first = layer.layer_norm_first
        self.attention = None if layer.attention is None else FoldedAttention(layer.attention, dtype)
        self.feed_forward = (
            None if layer.feed_forward is None else FoldedFeedForward(layer.feed_forward, dtype)
        )
        self.layer_norm, self.final_layer_norm = layer.layer_norm, layer.final_layer_norm

    def __call__(self, x: Tensor, packing: Packing, tables: list[Tensor] | None) -> Tensor:
        """x (N, D) packed, a table of relative positions for each group -> (N, D)."""
        if self.attention is not None:
            inner = self.layer_norm(x) if self.layer_norm_first else x
            x = _sum(x, self.attention(inner, packing, tables))
        if not self.layer_norm_first:
            x = self.layer_norm(x)
        if self.feed_forward is not None:
            inner = self.final_layer_norm(x) if self.layer_norm_first else x
            x = _sum(x, self.feed_forward(inner))
        return x if self.layer_norm_first else self.final_layer_norm(x)


class FoldedAttention:
    """An :class:`Attention` over packed frames: utterances of one length together, without a mask."""

    def __init__(self, module: Attention, dtype: torch.dtype) -> None:
        self.heads, self.head_dim = len(module.kept), module.head_dim
        self.position_bias = module.position_bias if module.gated else None
        self.out = Linear.of(dtype, module.out_proj)
        if self.heads:
            self.qkv = Linear.of(dtype, module.q_proj, module.k_proj, module.v_proj)

    def __call__(self, x: Tensor, packing: Packing, tables: list[Tensor] | None) -> Tensor:
        """x (N, D) -> (N, D), or the output bias (D,) if no head is left."""
        if not self.heads:
            return self.out.bias
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim))
        attended = []
        for index, group in enumerate(packing.groups):
            shape = (group.count, group.frames)
            q, k, v = qkv[group.rows].unflatten(0, shape).permute(2, 0, 3, 1, 4)
            bias = None
            if tables is not None and self.position_bias is not None:
                bias = self.position_bias(x[group.rows].unflatten(0, shape), tables[index])
                bias = bias[..., : group.valid].to(q.dtype)
            out = F.scaled_dot_product_attention(q, k[:, :, : group.valid], v[:, :, : group.valid], bias)
            attended.append(out.transpose(1, 2).flatten(2).flatten(0, 1))
        return self.out(attended[0] if len(attended) == 1 else torch.cat(attended))


class FoldedFeedForward:
    """A :class:`FeedForward` whose inner width is filled up with units of zeros."""

    def __init__(self, module: FeedForward, dtype: torch.dtype) -> None:
        width = module.output_dense.in_features
        filled = -(-width // ALIGN) * ALIGN
        self.inner = Linear.of(dtype, module.intermediate_dense, rows=filled) if width else None
        self.out = Linear.of(dtype, module.output_dense, columns=filled)

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, D), or the output bias (D,) if no unit is left."""
        return self.out.bias if self.inner is None else self.out(gelu_(self.inner(x)))


def _sum(x: Tensor, change: Tensor) -> Tensor:
    """x + change in float32, in the memory of ``change`` where that may be."""
    return change.add_(x) if change.shape == x.shape and change.dtype == x.dtype else x + change
