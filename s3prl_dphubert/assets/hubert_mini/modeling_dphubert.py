"""DPHubert for transformers: AutoModel.from_pretrained(FOLDER, trust_remote_code=True).

Made of the source of s3prl-dphubert 0.1.0, under the Apache License 2.0.
"""

from __future__ import annotations

import math
import numpy as np
import torch
import torch.nn.functional as F
from collections.abc import Sequence
from dataclasses import dataclass, field
from torch import Tensor, nn
from transformers import (
    AudioClassificationPipeline,
    PreTrainedModel,
    PretrainedConfig,
    Wav2Vec2FeatureExtractor,
)
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, SequenceClassifierOutput
from typing import Any


# From s3prl_dphubert/model/model_config.py

Heads = tuple[int, ...]

# From s3prl_dphubert/utils/device_copies.py

def start_copy(tensor: Tensor, device: torch.device) -> Tensor:
    """Start the copy of a tensor of the host to a device; on the CPU return the tensor itself.

    From pageable memory the host would wait for the GPU. Pinned memory that is freed meanwhile is safe:
    torch's allocator does not give it away before the copy is over.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

# From s3prl_dphubert/model/masks.py

@dataclass(frozen=True)
class Masks:
    """Soft or hard masks in [0, 1] for the units of a model; a missing entry leaves all of them open.

    Args:
        conv: conv layer index -> (C,) for its output channels.
        heads: Transformer layer index -> (H,) for the heads that it has, in their stored order.
        ffn: Transformer layer index -> (N,) for its feed-forward units.
        attention: Transformer layer index -> (1,) for the whole attention sublayer.
        feed_forward: Transformer layer index -> (1,) for the whole feed-forward sublayer.
        exact: take LayerNorm statistics over open channels only, so that cutting the closed
            ones out changes nothing; ``False`` behaves as the published implementation.
    """

    conv: dict[int, Tensor] = field(default_factory=dict)
    heads: dict[int, Tensor] = field(default_factory=dict)
    ffn: dict[int, Tensor] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)
    feed_forward: dict[int, Tensor] = field(default_factory=dict)
    exact: bool = True

NO_MASKS = Masks()


def open_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, open_units: Tensor) -> Tensor:
    """LayerNorm of x (..., C) whose mean and variance come from the open units alone.

    Args:
        x: (..., C).
        weight: (C,); likewise ``bias``.
        bias: (C,).
        eps: added to the variance.
        open_units: (C,), ``True`` for open units. Closed ones come out as 0, so the result equals the
            LayerNorm of the model without them.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # as torch's LayerNorm computes smaller types
    share = open_units.to(x.dtype) / open_units.sum()
    mean = (x * share).sum(-1, keepdim=True)
    centred = x - mean
    variance = (centred.square() * share).sum(-1, keepdim=True)
    return (centred * torch.rsqrt(variance + eps) * weight + bias) * open_units.to(x.dtype)

# From s3prl_dphubert/model/transformer.py

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

    def __init__(self, config: DPHubertConfig) -> None:
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

    def __init__(self, config: DPHubertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PositionalLayer(config) for _ in range(config.pos_conv_depth))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        for layer in self.layers:
            x = layer(x)
        return x


class PositionalLayer(nn.Module):
    """One convolution of a :class:`PositionalStack`, its LayerNorm and GELU."""

    def __init__(self, config: DPHubertConfig) -> None:
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

    def __init__(self, config: DPHubertConfig) -> None:
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

    def __init__(self, config: DPHubertConfig, heads: Heads) -> None:
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

    def __init__(self, config: DPHubertConfig, width: int) -> None:
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

    def __init__(self, config: DPHubertConfig) -> None:
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

    def __init__(self, config: DPHubertConfig, index: int) -> None:
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

# From s3prl_dphubert/model/feature_extractor.py

class ConvLayer(nn.Module):
    """Convolution; GroupNorm over time, LayerNorm over channels or no norm; GELU."""

    def __init__(self, config: DPHubertConfig, index: int) -> None:
        super().__init__()
        channels = config.conv_channels[index]
        self.layer_norm: nn.Module | None = None
        if config.extractor_mode == "layer_norm":
            self.layer_norm = nn.LayerNorm(channels)
        elif index == 0:
            self.layer_norm = nn.GroupNorm(channels, channels)
        self.conv = nn.Conv1d(
            config.conv_channels[index - 1] if index else 1,
            channels,
            config.conv_kernels[index],
            config.conv_strides[index],
            bias=config.conv_bias,
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, exact: bool = True) -> Tensor:
        """Run the layer.

        Args:
            x: (B, C_in, T_in).
            mask: (C_out,) for the output channels.
            exact: as in :class:`.Masks`.

        Returns:
            (B, C_out, T_out).
        """
        x = self.conv(x)
        if isinstance(self.layer_norm, nn.LayerNorm):
            x = _layer_norm(x.transpose(1, 2), self.layer_norm, mask if exact else None).transpose(1, 2)
        elif self.layer_norm is not None:
            x = self.layer_norm(x)
        x = F.gelu(x)
        return x if mask is None else x * mask[:, None].to(x.dtype)


class FeatureExtractor(nn.Module):
    """The conv layers, then one frozen scale per channel (``dummy_weight``).

    The scale is 1 except in pruned models, where the last conv layer's soft mask is folded
    into it. Its name is the one in released checkpoints.
    """

    def __init__(self, config: DPHubertConfig) -> None:
        super().__init__()
        self.dummy_weight = nn.Parameter(torch.ones(config.conv_channels[-1]), requires_grad=False)
        self.conv_layers = nn.ModuleList(ConvLayer(config, i) for i in range(len(config.conv_channels)))

    def forward(self, waveforms: Tensor, masks: Masks = NO_MASKS) -> Tensor:
        """waveforms (B, T) -> (B, F, C)."""
        x = waveforms[:, None]
        for index, layer in enumerate(self.conv_layers):
            x = layer(x, masks.conv.get(index), masks.exact)
        return x.transpose(1, 2) * self.dummy_weight


class FeatureProjection(nn.Module):
    """LayerNorm over the channels, which some models lack, and a linear map to the Transformer's width."""

    def __init__(self, config: DPHubertConfig) -> None:
        super().__init__()
        channels, eps = config.conv_channels[-1], config.layer_norm_eps
        self.layer_norm = nn.LayerNorm(channels, eps) if config.projection_norm else None
        self.projection = linear(config.conv_channels[-1], config.embed_dim)
        self.dropout = nn.Dropout(config.projection_dropout)

    def forward(self, x: Tensor, masks: Masks = NO_MASKS, last: int = -1) -> Tensor:
        """x (B, F, C) -> (B, F, D); ``last`` is the index of the last conv layer, in ``masks``."""
        if self.layer_norm is not None:
            x = _layer_norm(x, self.layer_norm, masks.conv.get(last) if masks.exact else None)
        return self.dropout(self.projection(x))


def _layer_norm(x: Tensor, norm: nn.LayerNorm, mask: Tensor | None) -> Tensor:
    """LayerNorm of x (..., C), over the units that a mask (C,) leaves open if there is one."""
    return norm(x) if mask is None else open_layer_norm(x, norm.weight, norm.bias, norm.eps, mask > 0)

# From s3prl_dphubert/model/speech_model.py

PADDED = -1e4  # added to attention scores of padded keys; finite, so that no row is all -inf


class Transformer(nn.Module):
    """Positional convolutions, then LayerNorm in post-norm models, then the layers.

    Pre-norm models have the LayerNorm too, after the layers; the hidden states do not go through it.
    """

    def __init__(self, config: DPHubertConfig) -> None:
        super().__init__()
        self.pos_conv_embed = (PositionalStack if config.pos_conv_depth > 1 else PositionalConv)(config)
        self.layer_norm = nn.LayerNorm(config.embed_dim, config.layer_norm_eps)
        self.layer_norm_first = config.layer_norm_first
        self.dropout = nn.Dropout(config.dropout)
        relative = config.num_buckets and any(config.heads)
        self.relative_positions = RelativePositions(config) if relative else None
        self.layers = nn.ModuleList(TransformerLayer(config, i) for i in range(config.num_layers))

    def forward(self, x: Tensor, padding: Tensor | None, masks: Masks, depth: int) -> list[Tensor]:
        """Run the first ``depth`` layers.

        Args:
            x: (B, F, D).
            padding: (B, 1, 1, F), added to attention scores.
            masks: of all layers.
            depth: number of layers to run.

        Returns:
            The output of each (B, F, D).
        """
        x, table = self.add_positions(x)
        outputs = []
        for layer in self.layers[:depth]:
            x = layer(x, padding, table, masks)
            outputs.append(x)
        return outputs

    def add_positions(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, F, D) -> input of the first layer (B, F, D); biases of relative positions (heads, F, F)."""
        if self.layer_norm_first and x.device.type != "cpu" and torch.is_autocast_enabled(x.device.type):
            # On a GPU autocast lets LayerNorm give float32; here none is in the way of what layers add up.
            x = x.float()
        x = x + self.pos_conv_embed(x)
        if not self.layer_norm_first:
            x = self.layer_norm(x)
        table = None if self.relative_positions is None else self.relative_positions(x.shape[1])
        return self.dropout(x), table


class Encoder(nn.Module):
    """Feature projection and Transformer."""

    def __init__(self, config: DPHubertConfig) -> None:
        super().__init__()
        self.feature_projection = FeatureProjection(config)
        self.transformer = Transformer(config)


def frame_lengths(config: DPHubertConfig, lengths: Tensor) -> Tensor:
    """Convert lengths in samples (B,) to lengths in frames (B,)."""
    for kernel, stride in zip(config.conv_kernels, config.conv_strides, strict=True):
        lengths = (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)
    return lengths


def initialise(module: nn.Module) -> None:
    """He's initialisation for the convolutions, BERT's for the position table."""
    if isinstance(module, nn.Conv1d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)

# From s3prl_dphubert/modeling/modeling_dphubert.py

class DPHubertConfig(PretrainedConfig):
    """Shape of a dense or pruned encoder, and the settings of its fine-tuning.

    The shape is what ``config.json`` of s3prl-dphubert states: ``conv_channels``, ``embed_dim``, the ids of
    each layer's ``heads``, the width of each layer's ``ffn`` and so on.

    Args:
        vocab_size: outputs of :class:`DPHubertForCTC`, the blank included.
        pad_token_id: id of CTC's blank.
        ctc_loss_reduction: ``sum`` or ``mean``.
        ctc_zero_infinity: take infinite losses, of labels longer than the audio, as 0.
        final_dropout: dropout probability before the CTC head.
        mask_time_prob: share of frames that SpecAugment sets to 0 in training; 0 switches it off.
        mask_time_length: frames that are set to 0 together.
        mask_feature_prob: share of dimensions that SpecAugment sets to 0 in training.
        mask_feature_length: dimensions that are set to 0 together.
        use_weighted_layer_sum: classify the weighted sum of all hidden states rather than the last alone.
        classifier_proj_size: width of the projection before the mean over time.
        shape: fields of ``config.json``.
    """

    model_type = "dphubert"
    attribute_map = {"hidden_size": "embed_dim", "num_attention_heads": "total_heads"}  # noqa: RUF012

    def __init__(
        self,
        vocab_size=32,
        pad_token_id=0,
        ctc_loss_reduction="sum",
        ctc_zero_infinity=False,
        final_dropout=0.0,
        mask_time_prob=0.0,
        mask_time_length=10,
        mask_feature_prob=0.0,
        mask_feature_length=10,
        use_weighted_layer_sum=False,
        classifier_proj_size=256,
        **shape,
    ):
        super().__init__(**shape)
        self.vocab_size = vocab_size
        self.pad_token_id = pad_token_id
        self.ctc_loss_reduction = ctc_loss_reduction
        self.ctc_zero_infinity = ctc_zero_infinity
        self.final_dropout = final_dropout
        self.mask_time_prob = mask_time_prob
        self.mask_time_length = mask_time_length
        self.mask_feature_prob = mask_feature_prob
        self.mask_feature_length = mask_feature_length
        self.use_weighted_layer_sum = use_weighted_layer_sum
        self.classifier_proj_size = classifier_proj_size

    @property
    def num_layers(self) -> int:
        """Transformer layers L."""
        return len(self.heads)

    num_hidden_layers = num_layers

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples from one frame to the next."""
        return int(np.prod(self.conv_strides))


class DPHubertFeatureExtractor(Wav2Vec2FeatureExtractor):
    """Waveforms at 16 kHz, normalised as in the teacher's training, padded, with their attention mask.

    Args:
        do_normalize: scale each waveform to zero mean and unit variance.
        normalize_eps: added to the variance.
        return_attention_mask: return the mask that tells samples from padding.
        options: as for :class:`~transformers.Wav2Vec2FeatureExtractor`.
    """

    def __init__(self, do_normalize=False, normalize_eps=1e-7, return_attention_mask=True, **options):
        super().__init__(do_normalize=do_normalize, return_attention_mask=return_attention_mask, **options)
        self.normalize_eps = normalize_eps

    def zero_mean_unit_var_norm(self, input_values, attention_mask, padding_value=0.0):
        """Scale each of ``input_values`` (T,) by its samples that ``attention_mask`` (B, T) leaves."""
        normalised = []
        for index, values in enumerate(input_values):
            length = len(values) if attention_mask is None else int(np.sum(attention_mask[index]))
            samples = np.full(len(values), padding_value, np.float32)
            valid = np.asarray(values[:length], np.float64)
            samples[:length] = (valid - valid.mean()) / np.sqrt(valid.var() + self.normalize_eps)
            normalised.append(samples)
        return normalised


class DPHubertPreTrainedModel(PreTrainedModel):
    """Base of the models with and without heads."""

    config_class = DPHubertConfig
    base_model_prefix = "dphubert"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _no_split_modules = ["TransformerLayer"]  # noqa: RUF012

    def _init_weights(self, module):
        initialise(module)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Attention) and module.gated:  # a buffer that no checkpoint has
            module.head_ids.copy_(torch.tensor(module.heads))
        elif isinstance(module, DPHubertForSequenceClassification) and module.layer_weights is not None:
            nn.init.constant_(module.layer_weights, 1 / len(module.layer_weights))

    def freeze_feature_encoder(self):
        """Freeze the conv layers, as in most fine-tuning."""
        self.base_model.feature_extractor.requires_grad_(False)

    def freeze_base_model(self):
        """Freeze everything but the head."""
        self.base_model.requires_grad_(False)

    def _get_feat_extract_output_lengths(self, input_lengths):
        """Convert samples (B,) to frames (B,)."""
        config: Any = self.config
        return frame_lengths(config, torch.as_tensor(input_lengths))

    def _frames(self, attention_mask, logits):
        """Return the valid frames (B,) of logits (B, F, …)."""
        if attention_mask is None:
            return torch.full(logits.shape[:1], logits.shape[1], device=logits.device)
        return self._get_feat_extract_output_lengths(attention_mask.sum(-1))

    def _result(self, output, return_dict):
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()


class DPHubertModel(DPHubertPreTrainedModel):
    """Encoder without a head.

    ``hidden_states`` are the L + 1 tensors (B, F, D) of s3prl-dphubert: the feature projection's output, then
    each layer's. ``last_hidden_state`` is the last of them, in pre-norm models after the final LayerNorm.
    """

    def __init__(self, config):
        super().__init__(config)
        self.feature_extractor = FeatureExtractor(config)
        self.encoder = Encoder(config)
        transformer: Any = self.encoder.transformer
        _turn_into_buffers(self.feature_extractor)  # its scale
        for norm in (norm for layer in transformer.layers for norm in layer.idle_norms()):
            _turn_into_buffers(norm)
        positions = transformer.pos_conv_embed
        if isinstance(getattr(positions, "conv", None), WeightNormConv):
            positions.conv = _with_torchs_weight_norm(positions.conv)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_values,
        attention_mask=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        """Run the encoder.

        Args:
            input_values: (B, T) of :class:`DPHubertFeatureExtractor`, zero after each utterance's end.
            attention_mask: (B, T), 1 for samples and 0 for padding.
            output_attentions: return the attention weights (B, H, F, F) of each layer, where H may be 0. They
                are computed beside the fused attention, which does not return them.
            output_hidden_states: return the hidden states of all layers.
            return_dict: return :class:`~transformers.modeling_outputs.BaseModelOutput` rather than a tuple.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        x = self.encoder.feature_projection(self.feature_extractor(input_values))
        x = self._spec_augment(x)
        padding = None
        if attention_mask is not None:
            frames = self._frames(attention_mask, x)
            padded = torch.arange(x.shape[1], device=x.device) >= frames[:, None]
            x = x.masked_fill(padded[:, :, None], 0.0)
            padding = (padded[:, None, None, :] * PADDED).to(x.dtype)
        attentions: Any = [] if output_attentions else None
        states = self._run_layers(x, padding, attentions)
        last = states[-1]
        if self.config.layer_norm_first:
            last = self.encoder.transformer.layer_norm(last)
        hidden = tuple(states) if output_hidden_states else None
        weights = None if attentions is None else tuple(attentions)
        output = BaseModelOutput(last_hidden_state=last, hidden_states=hidden, attentions=weights)
        return self._result(output, return_dict)

    def _run_layers(self, x, padding, attentions):
        """Return x (B, F, D) and the output of each layer, and add the weights of each to ``attentions``."""
        transformer = self.encoder.transformer
        is_checkpointed = self.gradient_checkpointing and self.training
        states = [x]
        x, table = transformer.add_positions(x)
        if is_checkpointed and not x.requires_grad:
            x = x.requires_grad_()  # or reentrant checkpoints would stop the gradients of adapters
        for layer in transformer.layers:
            if attentions is not None:
                attentions.append(_attention_weights(layer, x, padding, table))
            if is_checkpointed:
                x = self._gradient_checkpointing_func(layer.__call__, x, padding, table, NO_MASKS)
            else:
                x = layer(x, padding, table, NO_MASKS)
            states.append(x)
        return states

    def _spec_augment(self, x):
        """Set spans of frames and of dimensions of x (B, F, D) to 0 in training (Park et al. 2019)."""
        config = self.config
        if not self.training:
            return x
        batch, frames, width = x.shape
        if config.mask_time_prob > 0:
            spans = _spans(batch, frames, config.mask_time_prob, config.mask_time_length, x.device)
            x = x.masked_fill(spans[:, :, None], 0.0)
        if config.mask_feature_prob > 0:
            spans = _spans(batch, width, config.mask_feature_prob, config.mask_feature_length, x.device)
            x = x.masked_fill(spans[:, None, :], 0.0)
        return x


def _attention_weights(layer, x, padding, table):
    """Return the attention weights (B, H, F, F) of a layer for its input x (B, F, D), before dropout."""
    attention = layer.attention
    if attention is None or isinstance(attention.out_proj, OutputBias):
        return x.new_zeros(len(x), 0, x.shape[1], x.shape[1])
    inner = layer.layer_norm(x) if layer.layer_norm_first else x
    shape = len(attention.heads), attention.head_dim
    q, k = (proj(inner).unflatten(-1, shape).transpose(1, 2) for proj in (attention.q_proj, attention.k_proj))
    scores = q @ k.transpose(-2, -1) * attention.head_dim**-0.5
    if attention.gated and table is not None:
        scores = scores + attention.position_bias(inner, table)
    if padding is not None:
        scores = scores + padding
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype)


def _turn_into_buffers(module: nn.Module) -> None:
    """Freeze a module's own parameters for good, which loading would unfreeze.

    They are fixed, or nothing reads them, and DistributedDataParallel would wait for their gradients.
    """
    for name, parameter in list(module.named_parameters(recurse=False)):
        delattr(module, name)
        module.register_buffer(name, parameter.data)


def _with_torchs_weight_norm(conv: WeightNormConv) -> nn.Module:
    """Return the same convolution with the parameter names that transformers gives all such weights."""
    width, _, kernel = conv.weight_v.shape
    same = nn.Conv1d(width, width, kernel, padding=conv.padding, groups=conv.groups)
    same.weight, same.bias = nn.Parameter(conv.weight_v.data), nn.Parameter(conv.bias.data)
    return nn.utils.parametrizations.weight_norm(same, dim=2)


def _spans(batch, size, share, length, device):
    """Draw spans that cover about a ``share`` of positions (batch, size), less where they overlap."""
    starts = torch.rand(batch, size, device=device) < share / length
    return F.max_pool1d(F.pad(starts.float(), (length - 1, 0)), length, stride=1).bool()


class DPHubertForCTC(DPHubertPreTrainedModel):
    """Encoder with a linear map to the symbols of connectionist temporal classification."""

    def __init__(self, config):
        super().__init__(config)
        self.dphubert = DPHubertModel(config)
        self.dropout = nn.Dropout(config.final_dropout)
        self.lm_head = nn.Linear(config.embed_dim, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_values,
        attention_mask=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        labels=None,
    ):
        """Return logits (B, F, vocab_size), and the CTC loss of ``labels`` (B, N), -100 for padding.

        Raises:
            ValueError: a label is not below ``vocab_size``.
        """
        if labels is not None and labels.max() >= self.config.vocab_size:
            raise ValueError(f"labels has {labels.max()}, allowed: below vocab_size {self.config.vocab_size}")
        outputs = self.dphubert(input_values, attention_mask, output_attentions, output_hidden_states, True)
        logits = self.lm_head(self.dropout(outputs.last_hidden_state))
        loss = None if labels is None else self._loss(logits, self._frames(attention_mask, logits), labels)
        output = CausalLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return self._result(output, return_dict)

    def _loss(self, logits, frames, labels):
        is_label = labels >= 0
        with torch.backends.cudnn.flags(enabled=False):
            return F.ctc_loss(
                logits.log_softmax(-1, dtype=torch.float32).transpose(0, 1),
                labels[is_label],
                frames,
                is_label.sum(-1),
                blank=self.config.pad_token_id,
                reduction=self.config.ctc_loss_reduction,
                zero_infinity=self.config.ctc_zero_infinity,
            )


class DPHubertForSequenceClassification(DPHubertPreTrainedModel):
    """Encoder, projection, mean over the valid frames and a linear map to the classes of an utterance."""

    def __init__(self, config):
        super().__init__(config)
        self.dphubert = DPHubertModel(config)
        self.layer_weights = None
        if config.use_weighted_layer_sum:
            layers = config.num_layers + 1
            self.layer_weights = nn.Parameter(torch.full((layers,), 1 / layers))
        self.projector = nn.Linear(config.embed_dim, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_values,
        attention_mask=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        labels=None,
    ):
        """Return logits (B, classes), and the loss of ``labels`` (B,): cross-entropy; MSE for one class."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        all_states = output_hidden_states or self.layer_weights is not None
        outputs = self.dphubert(input_values, attention_mask, output_attentions, all_states, True)
        x = outputs.last_hidden_state
        if self.layer_weights is not None:
            states = (*outputs.hidden_states[:-1], x)
            x = sum(w * state for w, state in zip(self.layer_weights.softmax(-1), states, strict=True))
        x = self.projector(x)
        valid = torch.arange(x.shape[1], device=x.device) < self._frames(attention_mask, x)[:, None]
        x = x.masked_fill(~valid[:, :, None], 0.0).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        logits = self.classifier(x)
        loss = None if labels is None else self._loss(logits, labels)
        hidden = outputs.hidden_states if output_hidden_states else None
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=hidden, attentions=outputs.attentions
        )
        return self._result(output, return_dict)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.num_labels == 1:
            return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
        if self.config.problem_type == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return F.cross_entropy(logits, labels)


class DPHubertFeatureExtractionPipeline(AudioClassificationPipeline):
    """``pipeline("feature-extraction")``: audio to the last hidden states (1, F, D), as lists or a tensor.

    Audio is what :class:`~transformers.AudioClassificationPipeline` takes: an array (T,), a file or bytes,
    which need ffmpeg, or ``{"array": …, "sampling_rate": …}``, which is resampled.
    """

    def check_model_type(self, supported_models):
        """Accept the model: the check is for classes of transformers itself."""

    def _sanitize_parameters(self, return_tensors=None, **options):
        return {}, {}, {} if return_tensors is None else {"return_tensors": return_tensors}

    def postprocess(self, model_outputs, return_tensors=False):
        """Return the last hidden states, as a tensor or as nested lists."""
        return model_outputs[0] if return_tensors else model_outputs[0].tolist()
