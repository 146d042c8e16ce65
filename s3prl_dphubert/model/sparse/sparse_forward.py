"""A student's hidden states in training, without computing its closed units.

A sampled gate is exactly 0 with a probability that grows with the sparsity. Units behind it get no gradient
and contribute nothing, so that leaving them out changes neither states nor gradients. Masks of the other
units are multiplied into the weights that read them, which are smaller than their outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..feature_extractor import ConvLayer, FeatureExtractor, FeatureProjection, open_norm
from ..masks import NO_MASKS, Masks
from ..speech_model import SpeechModel, checked, normalise
from ..transformer import Attention, FeedForward, TransformerLayer
from .active_units import OpenUnits
from .dropout import attend, dropout
from .gelu_ops import gelu_conv, gelu_linear
from .positional import positional


def lean_features(model: SpeechModel, waveforms: Tensor, masks: Masks = NO_MASKS) -> list[Tensor]:
    """As :meth:`SpeechModel.extract_features` without padding, the same up to rounding but for its dropout.

    Random numbers of dropout are drawn in another way.

    Args:
        model: in training mode.
        waveforms: (B, T) at 16 kHz.
        masks: gates.

    Returns:
        L + 1 tensors (B, F, D).
    """
    waveforms = checked(waveforms, model.config)
    if model.config.normalize_waveform:
        waveforms = normalise(waveforms, None)
    device = waveforms.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else waveforms.dtype
    x, units = _extract(model.feature_extractor, waveforms, masks, dtype)
    x = _project(model.encoder.feature_projection, x, units, masks)
    states = [x]
    transformer = model.encoder.transformer
    x = x + positional(transformer.pos_conv_embed, x)
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
) -> tuple[Tensor, OpenUnits]:
    """waveforms (B, T) -> the last conv layer's units (B, F, C') before their mask, and which they are."""
    before, x = OpenUnits(), waveforms
    layers: Any = extractor.conv_layers
    for place, layer in enumerate(layers):
        over_channels = isinstance(layer.layer_norm, nn.LayerNorm) or place == len(layers) - 1
        units = OpenUnits.of(masks.conv.get(place), skip=masks.exact or not over_channels)
        weight = before.scale(units.cut(layer.conv.weight), 1)
        bias = None if layer.conv.bias is None else units.cut(layer.conv.bias)
        if place == 0:
            x = _first(layer, x, weight, bias, units, dtype)
        else:
            x = gelu_conv(x, weight.to(dtype), bias, layer.conv.stride[0])
        if isinstance(layer.layer_norm, nn.LayerNorm):
            x = _normed(x, layer.layer_norm, units, masks.exact).to(dtype)
        before = units
    return F.gelu(x) * before.cut(extractor.dummy_weight).to(x.dtype), before


def _first(
    layer: ConvLayer,
    waveforms: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    units: OpenUnits,
    dtype: torch.dtype,
) -> Tensor:
    """The first conv layer as a product with windows of the waveform, (B, T) -> (B, T', C').

    GroupNorm normalises each channel over time. Mean and variance of a channel follow from the
    windows' mean and covariance, so the norm becomes part of the weights of each utterance.
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


def _normed(x: Tensor, norm: nn.LayerNorm, units: OpenUnits, exact: bool) -> Tensor:
    """LayerNorm of x (B, F, C') over the open units, or over all that are there."""
    weight, bias = units.cut(norm.weight), units.cut(norm.bias)
    if exact and units.filled and units.mask is not None:
        return open_norm(x, weight, bias, norm.eps, units.mask > 0)
    return F.layer_norm(x, weight.shape, weight, bias, norm.eps)


def _project(projection: FeatureProjection, x: Tensor, units: OpenUnits, masks: Masks) -> Tensor:
    """x (B, F, C') -> (B, F, D)."""
    if units.mask is not None:
        x = x * units.mask.to(x.dtype)
    x = _normed(x, projection.layer_norm, units, masks.exact)
    weight = units.cut(projection.projection.weight, 1)
    return dropout(F.linear(x, weight, projection.projection.bias), projection.dropout.p)


def _layer(layer: TransformerLayer, x: Tensor, table: Tensor | None, masks: Masks) -> Tensor:
    """x (B, F, D) -> (B, F, D)."""
    first, place = layer.layer_norm_first, layer.index
    if layer.attention is not None:
        inner = layer.layer_norm(x) if first else x
        out = _attend(layer.attention, inner, table, OpenUnits.of(masks.heads.get(place), step=1))
        x = x + dropout(_gated(out, masks.attention.get(place)), layer.dropout.p)
    if not first:
        x = layer.layer_norm(x)
    if layer.feed_forward is not None:
        inner = layer.final_layer_norm(x) if first else x
        out = _feed(layer.feed_forward, inner, OpenUnits.of(masks.ffn.get(place)))
        x = x + _gated(out, masks.feed_forward.get(place))
    return x if first else layer.final_layer_norm(x)


def _gated(out: Tensor, gate: Tensor | None) -> Tensor:
    return out if gate is None else out * gate.to(out.dtype)


def _attend(attention: Attention, x: Tensor, table: Tensor | None, units: OpenUnits) -> Tensor:
    """x (B, F, D) -> (B, F, D), over the open heads."""
    kept = attention.kept
    heads = range(len(kept)) if units.index is None else units.index.tolist()
    if not heads:
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
        bias = attention.position_bias(x, table, [kept[head] for head in heads]).to(q.dtype)
    out = attend(q, k, v, bias, attention.attention_dropout).transpose(1, 2).flatten(2)
    return F.linear(out, rows.scale(attention.out_proj.weight, 1), attention.out_proj.bias)


def _feed(feed_forward: FeedForward, x: Tensor, units: OpenUnits) -> Tensor:
    """x (B, F, D) -> (B, F, D), over the open units."""
    inner, outer = feed_forward.intermediate_dense, feed_forward.output_dense
    if not outer.in_features or (units.index is not None and not len(units.index)):
        out = outer.bias.expand_as(x)
    else:
        hidden = F.linear(x, units.cut(inner.weight), units.cut(inner.bias))
        weight, inner_dropout = units.scale(outer.weight, 1), feed_forward.intermediate_dropout.p
        if inner_dropout:
            out = F.linear(dropout(F.gelu(hidden), inner_dropout), weight, outer.bias)
        else:
            out = gelu_linear(hidden, weight.to(hidden.dtype), outer.bias.to(hidden.dtype))
    return dropout(out, feed_forward.output_dropout.p)
