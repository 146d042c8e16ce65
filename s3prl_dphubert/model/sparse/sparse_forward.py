"""Hidden states of a student in training, without the units that its gates close.

A sampled gate is exactly 0 with a probability that grows with the sparsity. Units behind it get no gradient
and contribute nothing, so leaving them out changes neither states nor gradients. The masks of the others are
multiplied into the weights that read them, which are smaller than their outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..feature_extractor import ConvLayer, FeatureExtractor, FeatureProjection
from ..fft_conv import blocks, convolve, spectrum
from ..masks import NO_MASKS, Masks, open_layer_norm
from ..speech_model import SpeechModel, check_inputs, normalise
from ..transformer import (
    Attention,
    FeedForward,
    OutputBias,
    PositionalConv,
    PositionalStack,
    TransformerLayer,
)
from .active_units import ActiveUnits
from .dropout import attend, dropout
from .gelu_ops import gelu_conv, gelu_linear


def sparse_features(
    model: SpeechModel,
    waveforms: Tensor,
    masks: Masks = NO_MASKS,
    corrupt: Callable[[Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """Compute the hidden states of a student without its closed units.

    They are those of :meth:`SpeechModel.extract_features` up to rounding and dropout, whose random numbers
    are drawn in another way.

    Args:
        model: the student, in training mode.
        waveforms: (B, T) at 16 kHz, without padding.
        masks: sampled gates.
        corrupt: change of the Transformer's input (B, F, D), as for :meth:`SpeechModel.extract_features`.

    Returns:
        L + 1 tensors (B, F, D).

    Raises:
        ValueError: ``waveforms`` is not (B, T), or shorter than one frame.
    """
    check_inputs(waveforms, None, model.config)
    if model.config.normalize_waveform:
        waveforms = normalise(waveforms, None, model.config.normalize_eps)
    device = waveforms.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else waveforms.dtype
    x, units = _extract(model.feature_extractor, waveforms, masks, dtype)
    x = _project(model.encoder.feature_projection, x, units, masks)
    states = [x]
    if corrupt is not None:
        x = corrupt(x)
    transformer = model.encoder.transformer
    x = x + _positional(transformer.pos_conv_embed, x)
    if not transformer.layer_norm_first:
        x = transformer.layer_norm(x)
    x = dropout(x, transformer.dropout.p)
    relative = transformer.relative_positions
    table = None if relative is None else relative(x.shape[1])
    layers: Any = transformer.layers
    for layer in layers:
        x = _layer(layer, x, table, masks)
        states.append(x)
    return states


def _extract(
    extractor: FeatureExtractor, waveforms: Tensor, masks: Masks, dtype: torch.dtype
) -> tuple[Tensor, ActiveUnits]:
    """Run the conv layers on waveforms (B, T); return the active units (B, F, C') of the last, not masked."""
    before, x = ActiveUnits(), waveforms
    layers: Any = extractor.conv_layers
    for index, layer in enumerate(layers):
        normed = isinstance(layer.layer_norm, nn.LayerNorm) or index == len(layers) - 1  # by the projection
        units = ActiveUnits.of(masks.conv.get(index), skip=masks.exact or not normed)
        weight = before.scale(units.cut(layer.conv.weight), 1)
        bias = None if layer.conv.bias is None else units.cut(layer.conv.bias)
        if index == 0:
            x = _first_conv(layer, x, weight, bias, units, dtype)
        else:
            x = gelu_conv(x, weight.to(dtype), bias, layer.conv.stride[0])
        if isinstance(layer.layer_norm, nn.LayerNorm):
            x = _layer_norm(x, layer.layer_norm, units, masks.exact).to(dtype)
        before = units
    return F.gelu(x) * before.cut(extractor.dummy_weight).to(x.dtype), before


def _first_conv(
    layer: ConvLayer,
    waveforms: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    units: ActiveUnits,
    dtype: torch.dtype,
) -> Tensor:
    """First conv layer as a matrix product of windows of the waveform, (B, T) -> (B, T', C').

    GroupNorm normalises each channel over time. Mean and variance of a channel follow from the mean and
    the covariance of the windows, so the norm becomes part of the weights of each utterance.
    """
    windows = waveforms.unfold(1, layer.conv.kernel_size[0], layer.conv.stride[0])  # (B, T', K)
    weight = weight[:, 0].expand(len(windows), -1, -1)  # (B, C', K)
    norm = layer.layer_norm
    if isinstance(norm, nn.GroupNorm):
        exact = windows.double()
        mean = exact.mean(1, keepdim=True)
        exact = exact - mean
        covariance = exact.transpose(1, 2) @ exact / exact.shape[1]  # (B, K, K)
        wide = weight.double()
        variance = ((wide @ covariance) * wide).sum(-1, keepdim=True)
        scaled = units.cut(norm.weight)[:, None] * torch.rsqrt(variance + norm.eps) * wide
        shift = units.cut(norm.bias) - (scaled * mean).sum(-1)
        weight = scaled
    else:
        shift = weight.new_zeros(weight.shape[:2]) if bias is None else bias.expand(weight.shape[:2])
    # The shift is the weight of a last sample that is always 1.
    weight = torch.cat([weight, shift[:, :, None]], -1).to(dtype)
    return torch.bmm(F.pad(windows.to(dtype), (0, 1), value=1.0), weight.transpose(1, 2))


def _layer_norm(x: Tensor, norm: nn.LayerNorm, units: ActiveUnits, exact: bool) -> Tensor:
    """LayerNorm of x (B, F, C') over its open units, or over all of them unless ``exact``."""
    weight, bias = units.cut(norm.weight), units.cut(norm.bias)
    if exact and units.filled and units.mask is not None:
        return open_layer_norm(x, weight, bias, norm.eps, units.mask > 0)
    return F.layer_norm(x, weight.shape, weight, bias, norm.eps)


def _project(projection: FeatureProjection, x: Tensor, units: ActiveUnits, masks: Masks) -> Tensor:
    """x (B, F, C') -> (B, F, D)."""
    if units.mask is not None:
        x = x * units.mask.to(x.dtype)
    if projection.layer_norm is not None:
        x = _layer_norm(x, projection.layer_norm, units, masks.exact)
    weight = units.cut(projection.projection.weight, 1)
    return dropout(F.linear(x, weight, projection.projection.bias), projection.dropout.p)


def _positional(block: PositionalConv | PositionalStack, x: Tensor) -> Tensor:
    """x (B, F, D) -> (B, F, D); on the CPU a single convolution takes the FFT, a third of the time."""
    if x.device.type != "cpu" or not isinstance(block, PositionalConv):
        return block(x)
    conv, frames = block.conv, x.shape[1]
    x = x if block.batch_norm is None else block.batch_norm(x)
    wide = torch.promote_types(x.dtype, torch.float32)  # smaller types have no complex one
    weight = conv.weight().to(wide)
    cut = blocks(x.to(wide), weight.shape[-1])  # (B, blocks, size, D)
    y = convolve(cut.flatten(0, 1), spectrum(weight, conv.groups), weight.shape[-1])
    y = y.unflatten(0, cut.shape[:2]).flatten(1, 2)[:, :frames]
    return F.gelu(y + conv.bias).to(x.dtype)


def _layer(layer: TransformerLayer, x: Tensor, table: Tensor | None, masks: Masks) -> Tensor:
    """x (B, F, D) -> (B, F, D)."""
    first, index = layer.layer_norm_first, layer.index
    if layer.attention is not None:
        inner = layer.layer_norm(x) if first else x
        out = _attend(layer.attention, inner, table, ActiveUnits.of(masks.heads.get(index), step=1))
        x = x + dropout(_gated(out, masks.attention.get(index)), layer.dropout.p)
    if not first:
        x = layer.layer_norm(x)
    if layer.feed_forward is not None:
        inner = layer.final_layer_norm(x) if first else x
        out = _feed(layer.feed_forward, inner, ActiveUnits.of(masks.ffn.get(index)))
        x = x + _gated(out, masks.feed_forward.get(index))
    return layer.adapt(x) if first else layer.final_layer_norm(x)


def _gated(out: Tensor, gate: Tensor | None) -> Tensor:
    return out if gate is None else out * gate.to(out.dtype)


def _attend(attention: Attention, x: Tensor, table: Tensor | None, units: ActiveUnits) -> Tensor:
    """x (B, F, D) -> (B, F, D), from the active heads."""
    heads = range(len(attention.heads)) if units.index is None else units.index.tolist()
    if not heads or isinstance(attention.out_proj, OutputBias):
        return attention.out_proj.bias.expand_as(x)
    rows = units.repeat(attention.head_dim)
    q, k, v = (
        F.linear(x, rows.cut(proj.weight), rows.cut(proj.bias))
        .unflatten(-1, (len(heads), attention.head_dim))
        .transpose(1, 2)
        for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    bias = None
    if attention.gated and table is not None:
        bias = attention.position_bias(x, table, [attention.heads[head] for head in heads]).to(q.dtype)
    out = attend(q, k, v, bias, attention.attention_dropout).transpose(1, 2).flatten(2)
    return F.linear(out, rows.scale(attention.out_proj.weight, 1), attention.out_proj.bias)


def _feed(feed_forward: FeedForward, x: Tensor, units: ActiveUnits) -> Tensor:
    """x (B, F, D) -> (B, F, D), from the active units."""
    outer = feed_forward.output_dense
    if isinstance(outer, OutputBias) or (units.index is not None and not len(units.index)):
        out = outer.bias.expand_as(x)
    else:
        inner = feed_forward.intermediate_dense
        hidden = F.linear(x, units.cut(inner.weight), units.cut(inner.bias))
        weight, inner_dropout = units.scale(outer.weight, 1), feed_forward.intermediate_dropout.p
        if inner_dropout:
            out = F.linear(dropout(F.gelu(hidden), inner_dropout), weight, outer.bias)
        else:
            out = gelu_linear(hidden, weight.to(hidden.dtype), outer.bias.to(hidden.dtype))
    return dropout(out, feed_forward.output_dropout.p)
