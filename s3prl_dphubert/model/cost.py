"""Cost of a model in parameters and multiply-accumulates (MACs).

The formulas take widths that are numbers or tensors: the same code counts a model as it is, and gives the
differentiable cost of a student under its gates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .masks import Masks
from .model_config import ModelConfig

Number = Any  # an int, a float or a 0-d tensor
SUPERB_SAMPLES = {
    "short": (20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120),
    "medium": (59120, 62720, 66400, 71200, 75200, 78640, 82800, 87520),
    "long": (92720, 98560, 104400, 111120, 118480, 125040, 132720, 142640),
    "longer": (154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000),
}
"""Lengths of the 32 utterances whose MACs the SUPERB challenge adds up, in four buckets."""
SUPERB_LENGTHS = tuple(samples for bucket in SUPERB_SAMPLES.values() for samples in bucket)


@dataclass(frozen=True)
class Widths:
    """Number of open units, or its expectation under gates.

    Args:
        conv: output channels of each conv layer.
        heads: attention heads of each Transformer layer.
        ffn: feed-forward units of each Transformer layer.
        attention: probability that each layer's attention sublayer is there.
        feed_forward: probability that each layer's feed-forward sublayer is there.
        any_head: probability that each layer has any head.
    """

    conv: list[Number]
    heads: list[Number]
    ffn: list[Number]
    attention: list[Number]
    feed_forward: list[Number]
    any_head: list[Number]


def real_widths(config: ModelConfig) -> Widths:
    """Return the widths of a model as it is."""
    return Widths(
        conv=list(config.conv_channels),
        heads=[len(kept or ()) for kept in config.heads],
        ffn=[width or 0 for width in config.ffn],
        attention=[int(kept is not None) for kept in config.heads],
        feed_forward=[int(width is not None) for width in config.ffn],
        any_head=[int(bool(kept)) for kept in config.heads],
    )


def expected_widths(config: ModelConfig, open_units: dict[str, dict[int, Tensor]]) -> Widths:
    """Return the expected widths under gates.

    Args:
        config: shape of the model before pruning.
        open_units: kind of unit -> layer index -> probability (N,) that each unit is open.
    """
    real = real_widths(config)

    def total(kind: str, fallback: list[Number]) -> list[Number]:
        rows = open_units.get(kind, {})
        return [rows[i].double().sum() if i in rows else value for i, value in enumerate(fallback)]

    heads = open_units.get("heads", {})
    any_head = [1 - (1 - heads[i].double()).prod() if i in heads else v for i, v in enumerate(real.any_head)]
    return Widths(
        conv=total("conv", real.conv),
        heads=total("heads", real.heads),
        ffn=total("ffn", real.ffn),
        attention=total("attention", real.attention),
        feed_forward=total("feed_forward", real.feed_forward),
        any_head=any_head,
    )


def masked_widths(config: ModelConfig, masks: Masks) -> Widths:
    """Return the widths that remain when masked units are cut out."""
    kinds = ("conv", "heads", "ffn", "attention", "feed_forward")
    open_units = {kind: {i: (m > 0).double() for i, m in getattr(masks, kind).items()} for kind in kinds}
    widths = expected_widths(config, open_units)
    return widths if masks.exact else without_emptied(widths)


def without_emptied(widths: Widths) -> Widths:
    """Remove sublayers without units together with their biases, as the published pruning does."""
    return replace(
        widths,
        attention=[float(bool(n)) * p for n, p in zip(widths.heads, widths.attention, strict=True)],
        feed_forward=[float(bool(n)) * p for n, p in zip(widths.ffn, widths.feed_forward, strict=True)],
    )


def parameters(config: ModelConfig, widths: Widths | None = None, published: bool = False) -> Number:
    """Count all parameters, ``dummy_weight`` included; arguments as for :func:`parameter_parts`."""
    return sum(parameter_parts(config, widths, published).values())


def parameter_parts(
    config: ModelConfig, widths: Widths | None = None, published: bool = False
) -> dict[str, Number]:
    """Count the parameters of each conv layer, the projection, the positional block, each Transformer layer
    and the rest: the scale after the extractor, the Transformer's LayerNorm, WavLM's position table.

    Args:
        config: shape of the model before pruning.
        widths: open units; ``None`` counts the model as it is.
        published: leave out WavLM's relative positions, as the published formula does.

    Returns:
        Name of the part -> number of parameters.
    """
    w = widths or real_widths(config)
    d, hd = config.embed_dim, config.head_dim
    parts: dict[str, Number] = {}
    before: Number = 1
    for i, channels in enumerate(w.conv):
        normed = config.extractor_mode == "layer_norm" or i == 0
        parts[f"conv {i + 1}"] = channels * (before * config.conv_kernels[i] + config.conv_bias + 2 * normed)
        before = channels
    parts["projection"] = 2 * before + (before + 1) * d
    kernel, depth = config.pos_conv_kernel, config.pos_conv_depth
    magnitudes = kernel if depth == 1 else 0  # of weight norm
    parts["positions"] = depth * (d * (d // config.pos_conv_groups) * kernel + d) + magnitudes
    relative = bool(config.num_buckets and not published)
    no_table: Number = 1
    for i in range(config.num_layers):
        attention = 3 * (d + 1) * hd * w.heads[i] + (w.heads[i] * hd + 1) * d
        if relative:
            attention = attention + w.any_head[i] * (8 * hd + 8 + config.total_heads)
            no_table = no_table * (1 - w.any_head[i] * w.attention[i])
        feed_forward = (d + 1) * w.ffn[i] + (w.ffn[i] + 1) * d
        parts[f"layer {i + 1}"] = 4 * d + attention * w.attention[i] + feed_forward * w.feed_forward[i]
    table = (1 - no_table) * config.num_buckets * config.total_heads if relative else 0
    parts["rest"] = before + 2 * d + table
    return parts


def macs(config: ModelConfig, samples: int | Iterable[int], widths: Widths | None = None) -> Number:
    """Count the multiply-accumulates of utterances together; arguments as for :func:`mac_parts`."""
    return sum(mac_parts(config, samples, widths).values())


def mac_parts(
    config: ModelConfig, samples: int | Iterable[int], widths: Widths | None = None
) -> dict[str, Number]:
    """Count multiply-accumulates by part, as the SUPERB challenge does.

    A convolution counts frames x kernel x inputs per group x outputs, with the frames that it
    really produces: a positional one with an even kernel makes one more than it passes on.
    Attention also counts 4 for every score and every unit of a query (scaling, softmax,
    dropout), and the gate of WavLM's relative positions. Norms and activations do not count.

    Args:
        config: shape of the model before pruning.
        samples: length of the utterance at 16 kHz, or of each of several that run one by one.
        widths: open units; ``None`` counts the model as it is.

    Returns:
        Name of the part, as in :func:`parameter_parts` -> multiply-accumulates.
    """
    w = widths or real_widths(config)
    d, hd = config.embed_dim, config.head_dim
    frames = [samples] if isinstance(samples, int) else list(samples)
    parts: dict[str, Number] = {}
    before: Number = 1
    for i, channels in enumerate(w.conv):
        kernel, stride = config.conv_kernels[i], config.conv_strides[i]
        frames = [max(0, (n - kernel) // stride + 1) for n in frames]
        parts[f"conv {i + 1}"] = sum(frames) * kernel * before * channels
        before = channels
    t, tt = sum(frames), sum(n * n for n in frames)
    parts["projection"] = t * before * d
    kernel, depth = config.pos_conv_kernel, config.pos_conv_depth
    produced = sum(n + 1 - kernel % 2 for n in frames)
    parts["positions"] = depth * produced * d * (d // config.pos_conv_groups) * kernel
    for i in range(config.num_layers):
        width = w.heads[i] * hd
        attention = 4 * t * d * width + 2 * tt * width + 4 * w.heads[i] * tt + 4 * t * width
        if config.num_buckets:
            attention = attention + 8 * t * width
        feed_forward = 2 * t * d * w.ffn[i]
        parts[f"layer {i + 1}"] = attention * w.attention[i] + feed_forward * w.feed_forward[i]
    parts["rest"] = 0
    return parts


def superb_macs(config: ModelConfig, widths: Widths | None = None) -> dict[str, Number]:
    """Count the multiply-accumulates of the SUPERB challenge's utterances, by bucket of their lengths."""
    return {bucket: macs(config, lengths, widths) for bucket, lengths in SUPERB_SAMPLES.items()}
