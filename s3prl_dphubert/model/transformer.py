"""The Transformer: attention (plain and with WavLM's relative positions), feed-forward, layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.device_copies import start_copy
from .masks import Masks
from .model_config import Heads, ModelConfig

FLEX_WIDTH = 16  # of a head, below which torch has no flexible attention


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Linear map with weights normal with std 0.02 and bias 0."""
    # Without a device skip_init takes the CPU, even where a model is only outlined on "meta".
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=torch.get_default_device())
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


class OutputBias(nn.Module):
    """Bias alone, all that is left of an output map whose units are all pruned.

    A linear map without inputs computes the same, but has a weight without elements, which
    DistributedDataParallel, dynamic quantization and others refuse.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))


class PositionalConv(nn.Module):
    """Grouped convolution over frames, then GELU.

    Its weight has weight norm over all but the kernel axis, or else a BatchNorm comes before it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        is_plain = config.pos_conv_batch_norm
        self.batch_norm = ChannelAffine(config.embed_dim) if is_plain else None
        conv = PlainConv if is_plain else WeightNormConv
        self.conv = conv(config.embed_dim, config.pos_conv_kernel, config.pos_conv_groups)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        x = x if self.batch_norm is None else self.batch_norm(x)
        return F.gelu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)


class PositionalStack(nn.Module):
    """data2vec's block: plain grouped convolutions, each with a LayerNorm without weights, then GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PositionalLayer(config) for _ in range(config.pos_conv_depth))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        for layer in self.layers:
            x = layer(x)
        return x


class PositionalLayer(nn.Module):
    """One convolution of a :class:`PositionalStack`, its LayerNorm and GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, kernel = config.embed_dim, config.pos_conv_kernel
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.pos_conv_groups)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, F, D) -> (B, F, D); the extra frame of an even kernel is dropped."""
        y = self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        return F.gelu(F.layer_norm(y, y.shape[-1:]))


class ChannelAffine(nn.Module):
    """Scale and shift of each channel: a BatchNorm in inference, its statistics multiplied in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        return x * self.weight + self.bias


class SameConv(nn.Module):
    """Grouped Conv1d of D channels over frames, with zeros around their ends."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups, self.padding = groups, kernel // 2
        self.bias = nn.Parameter(torch.zeros(width))

    def weight(self) -> Tensor:
        """Return the weight (D, D/G, K)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D, F) -> (B, D, F) for odd kernels, (B, D, F + 1) for even ones."""
        return F.conv1d(x, self.weight(), self.bias, padding=self.padding, groups=self.groups)

    def _initial_weight(self, kernel: int) -> Tensor:
        width = len(self.bias)
        return torch.randn(width, width // self.groups, kernel) * (2 / math.sqrt(kernel * width))


class PlainConv(SameConv):
    """Conv1d with the weight ``weight_k`` (D, D/G, K)."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__(width, kernel, groups)
        self.weight_k = nn.Parameter(self._initial_weight(kernel))

    def weight(self) -> Tensor:
        """Return the weight (D, D/G, K)."""
        return self.weight_k


class WeightNormConv(SameConv):
    """Conv1d whose weight is ``weight_g`` (1, 1, K) times the normalised ``weight_v`` (D, D/G, K)."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__(width, kernel, groups)
        self.weight_v = nn.Parameter(self._initial_weight(kernel))
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))

    def weight(self) -> Tensor:
        """Return the normalised weight (D, D/G, K)."""
        return self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))


class RelativePositions(nn.Module):
    """WavLM's table of relative position biases, one for all layers (Chen et al. 2022, eq. 5)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_buckets, self.max_distance = config.num_buckets, config.max_distance
        self.rel_attn_embed = nn.Embedding(config.num_buckets, config.total_heads)

    def buckets(self, frames: int, device: torch.device) -> Tensor:
        """Return the bucket (F, F) of each key position (columns) relative to each query position (rows)."""
        position = torch.arange(frames, device=device)
        offset = position[None, :] - position[:, None]
        half = self.num_buckets // 2
        exact = half // 2
        distance = offset.abs()
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + far * (half - exact)).long().clamp(max=half - 1)
        return (offset > 0).long() * half + torch.where(distance < exact, distance, far)

    def forward(self, frames: int) -> Tensor:
        """Return the biases of all heads (total heads, F, F)."""
        table = self.rel_attn_embed
        return table(self.buckets(frames, table.weight.device)).permute(2, 0, 1)


def gated_positions(
    x: Tensor, table: Tensor, gate: nn.Linear, scale: Tensor, heads: Tensor | Sequence[int]
) -> Tensor:
    """Gate the table of relative position biases by the queries, as WavLM does (Chen et al. 2022).

    Args:
        x: input of the attention (B, F, D).
        table: biases of all heads before any pruning (total heads, F, F).
        gate: layer that computes the two gates of a head from its part of x.
        scale: scale of the second gate (1, total heads, 1, 1).
        heads: ids of the H heads to compute; a tensor on the device of x spares a copy to it.

    Returns:
        (B, H, F, F), to be added to the attention scores.
    """
    factors, table = position_factors(x, table, gate, scale, heads)
    return factors * table


def position_factors(
    x: Tensor, table: Tensor, gate: nn.Linear, scale: Tensor, heads: Tensor | Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the factors (B, H, F, 1) of :func:`gated_positions`, by query and by key (H, F, F)."""
    split = x.unflatten(-1, (len(table), gate.in_features))
    if len(heads) < len(table):
        index = heads if isinstance(heads, Tensor) else start_copy(torch.tensor(heads), x.device)
        split, scale, table = (t.index_select(dim, index) for t, dim in ((split, 2), (scale, 1), (table, 0)))
    gates = gate(split.transpose(1, 2)).unflatten(-1, (2, 4)).sum(-1).sigmoid()
    a, b = gates[..., :1], gates[..., 1:]
    return a * (b * scale - 1) + 2, table


class Attention(nn.Module):
    """Multi-head self-attention, in WavLM with gated relative position biases.

    Args:
        config: shape of the model.
        heads: ids of the heads that the layer has.
    """

    def __init__(self, config: ModelConfig, heads: Heads) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, config.head_dim
        self.attention_dropout = config.attention_dropout
        width = len(heads) * config.head_dim
        self.out_proj: nn.Linear | OutputBias
        if heads:
            self.k_proj = linear(config.embed_dim, width)
            self.v_proj = linear(config.embed_dim, width)
            self.q_proj = linear(config.embed_dim, width)
            self.out_proj = linear(width, config.embed_dim)
        else:
            self.out_proj = OutputBias(config.embed_dim)
        self.gated = bool(config.num_buckets and heads)
        if self.gated:
            self.gru_rel_pos_const = nn.Parameter(torch.ones(1, config.total_heads, 1, 1))
            self.gru_rel_pos_linear = nn.Linear(config.head_dim, 8)
            # On the device, since a list of indices is copied there each time, and the host waits.
            self.register_buffer("head_ids", torch.tensor(heads, device="cpu"), persistent=False)
            self.head_ids: Tensor

    def position_bias(self, x: Tensor, table: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """Compute :func:`gated_positions` of the heads with these ids, by default of all heads."""
        ids = self.head_ids if heads is None else heads
        return gated_positions(x, table, self.gru_rel_pos_linear, self.gru_rel_pos_const, ids)

    def forward(self, x: Tensor, padding: Tensor | None, table: Tensor | None, mask: Tensor | None) -> Tensor:
        """Run the attention.

        Args:
            x: (B, F, D).
            padding: (B, 1, 1, F), added to the scores.
            table: position biases (total heads, F, F).
            mask: (H,) for the heads.

        Returns:
            (B, F, D).
        """
        if isinstance(self.out_proj, OutputBias):
            return self.out_proj.bias.expand_as(x)
        q, k, v = (
            proj(x).unflatten(-1, (len(self.heads), self.head_dim)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.attention_dropout if self.training else 0.0
        if self.gated and table is not None:
            out = self._attend_gated(q, k, v, x, padding, table, dropout)
        else:
            bias = None if padding is None else padding.to(q.dtype)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        if mask is not None:
            out = out * mask[:, None, None].to(out.dtype)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _attend_gated(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        x: Tensor,
        padding: Tensor | None,
        table: Tensor,
        dropout: float,
    ) -> Tensor:
        """q, k, v (B, H, F, D / H) -> (B, H, F, D / H), with position biases gated by x (B, F, D)."""
        is_frozen = not dropout and not torch.is_grad_enabled()
        if is_frozen and x.is_cuda and self.head_dim >= FLEX_WIDTH and torch.compiler.is_compiling():
            gate, scale = self.gru_rel_pos_linear, self.gru_rel_pos_const
            factors, rows = position_factors(x, table, gate, scale, self.head_ids)
            return flex_attend(q, k, v, factors, rows, padding)
        bias = self.position_bias(x, table)
        bias = bias if padding is None else bias + padding
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout)


def flex_attend(
    q: Tensor, k: Tensor, v: Tensor, factors: Tensor, table: Tensor, padding: Tensor | None = None
) -> Tensor:
    """Attention whose position biases a compiled kernel computes as it goes, so that none are in memory.

    Args:
        q: (B, H, F, D / H); likewise k and v.
        k: as q.
        v: as q.
        factors: by query (B, H, F, 1), as of :func:`position_factors`.
        table: biases (H, F, F), which the factors multiply.
        padding: (B, 1, 1, F), added to the scores.

    Returns:
        (B, H, F, D / H).
    """
    from torch.nn.attention.flex_attention import flex_attention  # takes a third of a second

    def add_bias(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        score = score + factors[b, h, query, 0] * table[h, query, key]
        return score if padding is None else score + padding[b, 0, 0, key]

    return flex_attention(q, k, v, score_mod=add_bias)  # type: ignore[return-value]


class FeedForward(nn.Module):
    """Linear, GELU, linear, with ``width`` inner units; the output bias alone if there are none."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.output_dense: nn.Linear | OutputBias
        if width:
            self.intermediate_dense = linear(config.embed_dim, width)
            self.output_dense = linear(width, config.embed_dim)
        else:
            self.output_dense = OutputBias(config.embed_dim)
        self.intermediate_dropout = nn.Dropout(config.ffn_dropout)
        self.output_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, F, D), mask (N,) -> (B, F, D)."""
        if isinstance(self.output_dense, OutputBias):
            return self.output_dropout(self.output_dense.bias.expand_as(x))
        x = self.intermediate_dropout(F.gelu(self.intermediate_dense(x)))
        if mask is not None:
            x = x * mask.to(x.dtype)
        return self.output_dropout(self.output_dense(x))


class Adapter(nn.Module):
    """Bottleneck of a language at the end of a layer, as in MMS: LayerNorm, linear, ReLU, linear."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim)
        self.linear_1 = linear(config.embed_dim, config.adapter_dim)
        self.linear_2 = linear(config.adapter_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        return self.linear_2(F.relu(self.linear_1(self.norm(x))))


class TransformerLayer(nn.Module):
    """Attention and feed-forward, either of which may be absent, with residuals and norms.

    Layers of some pre-norm models have an adapter after them, which is never pruned.
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        heads, width = config.heads[index], config.ffn[index]
        self.index, self.layer_norm_first = index, config.layer_norm_first
        self.attention = None if heads is None else Attention(config, heads)
        self.feed_forward = None if width is None else FeedForward(config, width)
        self.dropout = nn.Dropout(config.dropout)
        self.layer_norm = nn.LayerNorm(config.embed_dim, config.layer_norm_eps)
        self.final_layer_norm = nn.LayerNorm(config.embed_dim, config.layer_norm_eps)
        self.adapter = Adapter(config) if config.adapter_dim else None

    def idle_norms(self) -> list[nn.LayerNorm]:
        """Return the norms before sublayers without units, whose output nothing reads in pre-norm models."""
        if not self.layer_norm_first:
            return []
        units = {
            self.layer_norm: None if self.attention is None else self.attention.out_proj,
            self.final_layer_norm: None if self.feed_forward is None else self.feed_forward.output_dense,
        }
        return [norm for norm, output in units.items() if output is None or isinstance(output, OutputBias)]

    def attend(self, x: Tensor, padding: Tensor | None, table: Tensor | None, masks: Masks) -> Tensor:
        """Add the output of the attention sublayer to x (B, F, D)."""
        if self.attention is None:
            return x
        inner = self.layer_norm(x) if self.layer_norm_first else x
        out = self.attention(inner, padding, table, masks.heads.get(self.index))
        if (gate := masks.attention.get(self.index)) is not None:
            out = out * gate.to(out.dtype)
        return x + self.dropout(out)

    def feed(self, x: Tensor, masks: Masks) -> Tensor:
        """Add the output of the feed-forward sublayer to x (B, F, D)."""
        if self.feed_forward is None:
            return x
        inner = self.final_layer_norm(x) if self.layer_norm_first else x
        out = self.feed_forward(inner, masks.ffn.get(self.index))
        if (gate := masks.feed_forward.get(self.index)) is not None:
            out = out * gate.to(out.dtype)
        return x + out

    def adapt(self, x: Tensor) -> Tensor:
        """Add the output of the adapter, if there is one, to x (..., D)."""
        return x if self.adapter is None else x + self.adapter(x)

    def forward(self, x: Tensor, padding: Tensor | None, table: Tensor | None, masks: Masks) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        x = self.attend(x, padding, table, masks)
        if self.layer_norm_first:
            return self.adapt(self.feed(x, masks))
        return self.final_layer_norm(self.feed(self.layer_norm(x), masks))
