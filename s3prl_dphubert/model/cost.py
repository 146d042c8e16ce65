"""Cost of a model in parameters and multiply-accumulates (MACs).

The formulas take widths that are numbers or tensors: the same code counts a model as it is, and gives the
differentiable cost of a student under its gates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..utils.device_copies import start_copy
from .masks import Masks
from .model_config import ModelConfig

Number = Any  # an int, a float or a 0-d tensor
Vector = Any  # an array of numbers, or a tensor (n,)
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

    Each is one vector: an array of numbers, or a tensor. The cost of all layers then takes a few operations,
    rather than hundreds of tiny ones on a GPU.

    Args:
        conv: output channels of each conv layer.
        heads: attention heads of each Transformer layer.
        ffn: feed-forward units of each Transformer layer.
        attention: probability that each layer's attention sublayer is there.
        feed_forward: probability that each layer's feed-forward sublayer is there.
        any_head: probability that each layer has any head.
    """

    conv: Vector
    heads: Vector
    ffn: Vector
    attention: Vector
    feed_forward: Vector
    any_head: Vector


def real_widths(config: ModelConfig) -> Widths:
    """Return the widths of a model as it is, as exact integers."""
    columns = {
        "conv": list(config.conv_channels),
        "heads": [len(kept or ()) for kept in config.heads],
        "ffn": [width or 0 for width in config.ffn],
        "attention": [int(kept is not None) for kept in config.heads],
        "feed_forward": [int(width is not None) for width in config.ffn],
        "any_head": [int(bool(kept)) for kept in config.heads],
    }
    return Widths(**{name: np.array(values, dtype=object) for name, values in columns.items()})


def expected_widths(config: ModelConfig, open_units: dict[str, dict[int, Tensor]]) -> Widths:
    """Return the expected widths under gates.

    Args:
        config: shape of the model before pruning.
        open_units: kind of unit -> layer index -> probability (N,) that each unit is open.

    Returns:
        Tensors in float64, or the numbers of :func:`real_widths` if nothing has gates.
    """
    real = real_widths(config)
    like = next((row for rows in open_units.values() for row in rows.values()), None)
    if like is None:
        return real
    like = like.double()
    columns = {name: constant(values, like) for name, values in vars(real).items()}
    for kind, rows in open_units.items():
        if rows:
            layers = sorted(rows)
            units = _stack([rows[layer] for layer in layers])
            columns[kind] = _put(columns[kind], layers, units.double().sum(-1))
            if kind == "heads":
                columns["any_head"] = _put(columns["any_head"], layers, 1 - _product(1 - units.double()))
    return Widths(**columns)


def _stack(rows: list[Tensor]) -> Tensor:
    """Stack rows (N,) of one or of several lengths, padded with zeros."""
    alike = len({len(row) for row in rows}) == 1
    return torch.stack(rows) if alike else nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _put(column: Tensor, layers: list[int], values: Tensor) -> Tensor:
    """Replace the elements of a column (L,) at the layers that have gates."""
    if len(layers) == len(column):
        return values
    return column.index_copy(0, constant(layers, column).long(), values)


def _product(factors: Tensor) -> Tensor:
    """Multiply factors (L, N) to (L,), pair by pair.

    The gradient of :func:`torch.prod` looks for zeros, for which a GPU has to wait.
    """
    while (size := factors.shape[-1]) > 1:
        half = size // 2
        pairs = factors[..., :half] * factors[..., half : 2 * half]
        factors = torch.cat([pairs, factors[..., 2 * half :]], -1) if size % 2 else pairs
    return factors[..., 0]


def constant(values: Any, like: Vector) -> Vector:
    """Return numbers as a vector of the kind of another one; the host does not wait for a GPU."""
    if not isinstance(like, Tensor):
        return np.array(values, dtype=object)
    column = torch.tensor([float(value) for value in values], dtype=torch.float64)
    return start_copy(column, like.device)


def before(conv: Vector) -> Vector:
    """Return the input channels of each conv layer, given their output channels."""
    if isinstance(conv, Tensor):
        return torch.cat([conv.new_ones(1), conv[:-1]])
    return np.concatenate([[1], conv[:-1]])


def masked_widths(config: ModelConfig, masks: Masks) -> Widths:
    """Return the widths that remain when masked units are cut out, as numbers."""
    kinds = ("conv", "heads", "ffn", "attention", "feed_forward")
    open_units = {kind: {i: (m > 0).double() for i, m in getattr(masks, kind).items()} for kind in kinds}
    columns = vars(expected_widths(config, open_units))
    widths = Widths(**{name: np.array(values.tolist(), dtype=object) for name, values in columns.items()})
    return widths if masks.exact else without_emptied(widths)


def without_emptied(widths: Widths) -> Widths:
    """Remove sublayers without units together with their biases, as the published pruning does."""
    return replace(
        widths,
        attention=(widths.heads > 0) * widths.attention,
        feed_forward=(widths.ffn > 0) * widths.feed_forward,
    )


def parameters(config: ModelConfig, widths: Widths | None = None, published: bool = False) -> Number:
    """Count all parameters, ``dummy_weight`` included; arguments as for :func:`parameter_parts`."""
    return _total(_parameter_columns(config, widths or real_widths(config), published))


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
    return _parts(_parameter_columns(config, widths or real_widths(config), published))


def _parameter_columns(config: ModelConfig, w: Widths, published: bool) -> dict[str, Any]:
    d, hd, last = config.embed_dim, config.head_dim, w.conv[-1]
    normed = [config.extractor_mode == "layer_norm" or i == 0 for i in range(len(config.conv_channels))]
    own = constant([config.conv_bias + 2 * norm for norm in normed], w.conv)
    kernel, depth = config.pos_conv_kernel, config.pos_conv_depth
    magnitudes = kernel if depth == 1 else 0  # of weight norm
    if config.pos_conv_batch_norm:
        magnitudes = 2 * d
    adapter = 2 * d + (d + 1) * config.adapter_dim + (config.adapter_dim + 1) * d if config.adapter_dim else 0
    attention = 3 * (d + 1) * hd * w.heads + (w.heads * hd + 1) * d
    table: Number = 0
    if config.num_buckets and not published:
        attention = attention + w.any_head * (8 * hd + 8 + config.total_heads)
        no_table = 1 - w.any_head * w.attention
        no_table = _product(no_table) if isinstance(no_table, Tensor) else no_table.prod()
        table = (1 - no_table) * (config.num_buckets * config.total_heads)
    feed_forward = (d + 1) * w.ffn + (w.ffn + 1) * d
    return {
        "conv": w.conv * (before(w.conv) * constant(config.conv_kernels, w.conv) + own),
        "projection": 2 * last * config.projection_norm + (last + 1) * d,
        "positions": depth * (d * (d // config.pos_conv_groups) * kernel + d) + magnitudes,
        "layer": 4 * d + adapter + attention * w.attention + feed_forward * w.feed_forward,
        "rest": last + 2 * d + table,
    }


def macs(config: ModelConfig, samples: int | Iterable[int], widths: Widths | None = None) -> Number:
    """Count the multiply-accumulates of utterances together; arguments as for :func:`mac_parts`."""
    return _total(_mac_columns(config, samples, widths or real_widths(config)))


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
    return _parts(_mac_columns(config, samples, widths or real_widths(config)))


def _mac_columns(config: ModelConfig, samples: int | Iterable[int], w: Widths) -> dict[str, Any]:
    d, hd = config.embed_dim, config.head_dim
    frames = [samples] if isinstance(samples, int) else list(samples)
    each: list[int] = []  # of one input and output channel
    for kernel, stride in zip(config.conv_kernels, config.conv_strides, strict=True):
        frames = [max(0, (n - kernel) // stride + 1) for n in frames]
        each.append(sum(frames) * kernel)
    t, tt = sum(frames), sum(n * n for n in frames)
    kernel, depth = config.pos_conv_kernel, config.pos_conv_depth
    produced = sum(n + 1 - kernel % 2 for n in frames)
    width = w.heads * hd
    attention = 4 * t * d * width + 2 * tt * width + 4 * tt * w.heads + 4 * t * width
    if config.num_buckets:
        attention = attention + 8 * t * width
    feed_forward = 2 * t * d * w.ffn
    return {
        "conv": constant(each, w.conv) * before(w.conv) * w.conv,
        "projection": t * d * w.conv[-1],
        "positions": depth * produced * d * (d // config.pos_conv_groups) * kernel,
        "layer": attention * w.attention + feed_forward * w.feed_forward + 2 * t * d * config.adapter_dim,
        "rest": 0,
    }


def _total(columns: dict[str, Any]) -> Number:
    return sum(column.sum() if _is_vector(column) else column for column in columns.values())


def _parts(columns: dict[str, Any]) -> dict[str, Number]:
    """Give each element of a column the name of its layer, from 1."""
    parts: dict[str, Number] = {}
    for name, column in columns.items():
        if _is_vector(column):
            parts.update({f"{name} {layer}": value for layer, value in enumerate(column, start=1)})
        else:
            parts[name] = column
    return parts


def _is_vector(column: Any) -> bool:
    return getattr(column, "ndim", 0) == 1


def superb_macs(config: ModelConfig, widths: Widths | None = None) -> dict[str, Number]:
    """Count the multiply-accumulates of the SUPERB challenge's utterances, by bucket of their lengths."""
    return {bucket: macs(config, lengths, widths) for bucket, lengths in SUPERB_SAMPLES.items()}
