"""Transformer layers over packed frames, for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..packing import Packing
from ..transformer import Adapter, Attention, FeedForward, OutputBias, TransformerLayer, gated_positions

ALIGN = 16  # MKL takes half the time for float32 matrices whose rows start at multiples of it
Module = TypeVar("Module", bound=nn.Module)


def frozen(tensor: Tensor) -> nn.Parameter:
    """Parameter without gradient that shares the memory of a tensor."""
    return nn.Parameter(tensor.detach(), requires_grad=False)


def frozen_copy(module: Module) -> Module:
    """Copy of a module in eval mode whose frozen parameters share the memory of the original's."""
    shared = {id(parameter): frozen(parameter) for parameter in module.parameters()}
    return copy.deepcopy(module, shared).eval()  # deepcopy takes what its memo already holds


def gelu_(x: Tensor) -> Tensor:
    """Apply GELU in place: touching the pages of a new tensor would cost more than the function."""
    return torch.ops.aten.gelu_(x)


class FoldedLinear(nn.Module):
    """Linear maps of the same inputs as one, in one number type.

    Args:
        dtype: number type of the product.
        layers: the maps.
        rows: pad the weight with zeros to at least this many outputs.
        columns: pad the weight with zeros to at least this many inputs.
    """

    def __init__(self, dtype: torch.dtype, *layers: nn.Linear, rows: int = 0, columns: int = 0) -> None:
        super().__init__()
        weight, bias = layers[0].weight.detach(), layers[0].bias.detach()
        if len(layers) > 1:
            weight = torch.cat([layer.weight.detach() for layer in layers])
            bias = torch.cat([layer.bias.detach() for layer in layers])
        more_rows, more_columns = max(0, rows - len(weight)), max(0, columns - weight.shape[1])
        if more_rows or more_columns:
            weight = F.pad(weight, (0, more_columns, 0, more_rows))
            bias = F.pad(bias, (0, more_rows))
        self.weight, self.bias = frozen(weight.to(dtype)), frozen(bias.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, inputs) of any type -> (N, outputs) in the weight's type."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


def _output(dtype: torch.dtype, layer: nn.Linear | OutputBias, columns: int = 0) -> FoldedLinear | OutputBias:
    if isinstance(layer, OutputBias):
        return frozen_copy(layer).to(dtype)
    return FoldedLinear(dtype, layer, columns=columns)


class FoldedLayer(nn.Module):
    """A :class:`TransformerLayer` over packed frames, with matrix products in ``dtype``."""

    def __init__(self, layer: TransformerLayer, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer_norm_first = layer.layer_norm_first
        self.attention = None if layer.attention is None else FoldedAttention(layer.attention, dtype)
        self.feed_forward = (
            None if layer.feed_forward is None else FoldedFeedForward(layer.feed_forward, dtype)
        )
        self.layer_norm = frozen_copy(layer.layer_norm)
        self.final_layer_norm = frozen_copy(layer.final_layer_norm)
        self.adapter = None if layer.adapter is None else FoldedAdapter(layer.adapter, dtype)

    def forward(self, x: Tensor, packing: Packing, tables: list[Tensor] | None) -> Tensor:
        """Run the layer.

        Args:
            x: (N, D), packed.
            packing: where the utterances lie in x.
            tables: WavLM's position biases (total heads, F, F) for each group of ``packing``.

        Returns:
            (N, D), float32.
        """
        if self.attention is not None:
            inner = self.layer_norm(x) if self.layer_norm_first else x
            x = _add(x, self.attention(inner, packing, tables))
        if not self.layer_norm_first:
            x = self.layer_norm(x)
        if self.feed_forward is not None:
            inner = self.final_layer_norm(x) if self.layer_norm_first else x
            x = _add(x, self.feed_forward(inner))
        if self.adapter is not None:
            x = _add(x, self.adapter(x))
        return x if self.layer_norm_first else self.final_layer_norm(x)


class FoldedAttention(nn.Module):
    """An :class:`Attention` over packed frames: utterances of one length run together, without a mask."""

    def __init__(self, attention: Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, self.head_dim = attention.heads, attention.head_dim
        self.out = _output(dtype, attention.out_proj)
        if self.heads:
            self.qkv = FoldedLinear(dtype, attention.q_proj, attention.k_proj, attention.v_proj)
        self.gated = attention.gated
        if self.gated:
            self.gate = frozen_copy(attention.gru_rel_pos_linear)
            self.gate_scale = frozen(attention.gru_rel_pos_const)

    def forward(self, x: Tensor, packing: Packing, tables: list[Tensor] | None) -> Tensor:
        """x (N, D) -> (N, D), or the output bias (D,) if no head is left."""
        if isinstance(self.out, OutputBias):
            return self.out.bias
        qkv = self.qkv(x).unflatten(-1, (3, len(self.heads), self.head_dim))
        attended = []
        for index, group in enumerate(packing.groups):
            shape = (group.count, group.frames)
            q, k, v = qkv[group.rows].unflatten(0, shape).permute(2, 0, 3, 1, 4)
            bias = None
            if self.gated and tables is not None:
                queries = x[group.rows].unflatten(0, shape)
                bias = gated_positions(queries, tables[index], self.gate, self.gate_scale, self.heads)
                bias = bias[..., : group.valid].to(q.dtype)
            out = F.scaled_dot_product_attention(q, k[:, :, : group.valid], v[:, :, : group.valid], bias)
            attended.append(out.transpose(1, 2).flatten(2).flatten(0, 1))
        return self.out(attended[0] if len(attended) == 1 else torch.cat(attended))


class FoldedFeedForward(nn.Module):
    """A :class:`FeedForward` whose inner width is padded with zero units to a multiple of :data:`ALIGN`."""

    def __init__(self, feed_forward: FeedForward, dtype: torch.dtype) -> None:
        super().__init__()
        outer = feed_forward.output_dense
        padded = 0 if isinstance(outer, OutputBias) else -(-outer.in_features // ALIGN) * ALIGN
        self.inner = FoldedLinear(dtype, feed_forward.intermediate_dense, rows=padded) if padded else None
        self.out = _output(dtype, outer, padded)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, D), or the output bias (D,) if no unit is left."""
        if self.inner is None or isinstance(self.out, OutputBias):
            return self.out.bias
        return self.out(gelu_(self.inner(x)))


class FoldedAdapter(nn.Module):
    """An :class:`Adapter` with matrix products in ``dtype``."""

    def __init__(self, adapter: Adapter, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = frozen_copy(adapter.norm)
        self.inner, self.out = FoldedLinear(dtype, adapter.linear_1), FoldedLinear(dtype, adapter.linear_2)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, D)."""
        return self.out(F.relu(self.inner(self.norm(x))))


def _add(x: Tensor, update: Tensor) -> Tensor:
    """x + update in float32, in the memory of ``update`` where its shape and type allow."""
    return update.add_(x) if update.shape == x.shape and update.dtype == x.dtype else x + update
