"""Configuration of an encoder, dense or pruned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError, shown
from ..utils.config_io import from_dict, type_faults

Heads = tuple[int, ...]

# A damaged file might ask for a thousand million; the largest models have 48 layers and 7 convolutions.
MAX_LAYERS, MAX_CONVOLUTIONS, MAX_HEADS = 1000, 100, 1000
_LATER = {"pos_conv_batch_norm": False, "projection_norm": True, "layer_norm_eps": 1e-5, "adapter_dim": 0}


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a HuBERT, wav2vec 2.0, WavLM, UniSpeech or data2vec encoder, dense or pruned.

    Args:
        extractor_mode: ``group_norm`` (one GroupNorm after the first conv, Base models) or
            ``layer_norm`` (a LayerNorm after every conv, Large models).
        conv_channels: output channels of each conv layer.
        conv_kernels: kernel sizes in samples of that layer's input.
        conv_strides: strides in samples of that layer's input.
        conv_bias: whether the conv layers have a bias.
        embed_dim: width D of the Transformer.
        total_heads: attention heads a layer had before any pruning.
        head_dim: width of one head.
        heads: ids of the heads of each layer; ``()`` leaves only the output bias,
            ``None`` means that the layer has no attention sublayer.
        ffn: inner width of each layer's feed-forward; 0 leaves only the output bias,
            ``None`` means that the layer has no feed-forward sublayer.
        pos_conv_kernel: kernel of the positional convolution in frames.
        pos_conv_groups: groups of the positional convolution.
        pos_conv_depth: 1 for one convolution with weight norm (HuBERT, wav2vec 2.0, WavLM);
            otherwise the number of plain convolutions, each with LayerNorm and GELU (data2vec).
        pos_conv_batch_norm: whether the one positional convolution has a BatchNorm before it instead of
            weight norm (mHuBERT). It is kept as the scale and shift that it is in inference.
        projection_norm: whether the feature projection begins with a LayerNorm (not in DistilHuBERT).
        layer_norm_first: pre-norm Transformer (Large) rather than post-norm (Base).
        layer_norm_eps: added to the variance by the LayerNorms of feature projection and Transformer; those
            of the convolutions have 1e-5.
        adapter_dim: inner width of the adapter at the end of each layer (MMS); 0 for models without them.
        normalize_waveform: scale every waveform to zero mean and unit variance first.
        normalize_eps: added to the variance by then: 1e-5 in fairseq, 1e-7 in transformers.
        num_buckets: buckets of WavLM's relative positions; 0 for models without them.
        max_distance: distance in frames beyond which relative positions share a bucket.
        projection_dropout: dropout probability after the feature projection.
        attention_dropout: dropout probability of the attention weights.
        ffn_dropout: dropout probability of the feed-forward's inner units.
        dropout: dropout probability of each sublayer's output and after the positional convolution.

    Raises:
        ConfigError: a field is invalid; the message lists all of them.
    """

    extractor_mode: str = "group_norm"
    conv_channels: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    embed_dim: int = 768
    total_heads: int = 12
    head_dim: int = 64
    heads: tuple[Heads | None, ...] = (tuple(range(12)),) * 12
    ffn: tuple[int | None, ...] = (3072,) * 12
    pos_conv_kernel: int = 128
    pos_conv_groups: int = 16
    pos_conv_depth: int = 1
    pos_conv_batch_norm: bool = False
    projection_norm: bool = True
    layer_norm_first: bool = False
    layer_norm_eps: float = 1e-5
    adapter_dim: int = 0
    normalize_waveform: bool = False
    normalize_eps: float = 1e-5
    num_buckets: int = 0
    max_distance: int = 800
    projection_dropout: float = 0.1
    attention_dropout: float = 0.1
    ffn_dropout: float = 0.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        ConfigError.raise_for("model configuration", _length_faults(vars(self)))
        for name in ("conv_channels", "conv_kernels", "conv_strides", "ffn"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        heads = tuple(None if layer is None else tuple(layer) for layer in self.heads)
        object.__setattr__(self, "heads", heads)
        ConfigError.raise_for("model configuration", type_faults(self) or self._faults())

    def _faults(self) -> Iterator[str]:
        """Yield what is wrong with values that have the right types."""
        yield from self._extractor_faults()
        for name in (
            "embed_dim",
            "total_heads",
            "head_dim",
            "pos_conv_kernel",
            "pos_conv_groups",
            "pos_conv_depth",
        ):
            if getattr(self, name) < 1:
                yield f"{name} is {getattr(self, name)}, allowed: integers from 1"
        for name, most in (("pos_conv_depth", MAX_LAYERS), ("total_heads", MAX_HEADS)):
            if getattr(self, name) > most:
                yield f"{name} is {getattr(self, name)}, allowed: 1 to {most}"
        if self.embed_dim % max(self.pos_conv_groups, 1):
            yield f"pos_conv_groups is {self.pos_conv_groups}, must divide embed_dim {self.embed_dim}"
        if self.pos_conv_batch_norm and self.pos_conv_depth > 1:
            yield f"pos_conv_batch_norm is True, allowed: False, as pos_conv_depth is {self.pos_conv_depth}"
        yield from self._layer_faults()
        for name in ("normalize_eps", "layer_norm_eps"):
            if not 0 < getattr(self, name) < 1:
                yield f"{name} is {getattr(self, name)}, allowed: above 0 and below 1"
        for name in ("projection_dropout", "attention_dropout", "ffn_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                yield f"{name} is {getattr(self, name)}, allowed: from 0 to below 1"

    def _extractor_faults(self) -> Iterator[str]:
        if self.extractor_mode not in ("group_norm", "layer_norm"):
            yield f"extractor_mode is {shown(self.extractor_mode)}, allowed: group_norm, layer_norm"
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides) > 0:
            yield "conv_channels, conv_kernels and conv_strides must have one entry for each conv layer"
        for name in ("conv_channels", "conv_kernels", "conv_strides"):
            if any(value < 1 for value in getattr(self, name)):
                yield f"{name} is {shown(getattr(self, name))}, allowed: integers from 1"

    def _layer_faults(self) -> Iterator[str]:
        if self.adapter_dim < 0:
            yield f"adapter_dim is {self.adapter_dim}, allowed: integers from 0"
        if self.adapter_dim and not self.layer_norm_first:
            yield f"adapter_dim is {self.adapter_dim}, allowed: 0 where layer_norm_first is False"
        if len(self.heads) != len(self.ffn) or not self.heads:
            yield f"heads has {len(self.heads)} layers and ffn {len(self.ffn)}, must be equal and not 0"
        for layer, ids in enumerate(self.heads):
            if ids is not None and (
                sorted(set(ids)) != list(ids) or any(not 0 <= head < self.total_heads for head in ids)
            ):
                yield f"heads[{layer}] is {shown(ids)}, allowed: rising ids below {self.total_heads}"
        if any(width is not None and width < 0 for width in self.ffn):
            yield f"ffn is {shown(self.ffn)}, allowed: null or integers from 0"
        if self.num_buckets and (self.num_buckets < 4 or self.max_distance <= self.num_buckets // 4):
            yield (
                f"num_buckets is {self.num_buckets} and max_distance {self.max_distance}, "
                "allowed: 0 buckets, or 4 or more and a distance above a quarter of them"
            )
        if self.num_buckets and self.total_heads * self.head_dim != self.embed_dim:
            yield "relative positions need total_heads * head_dim == embed_dim"

    @property
    def num_layers(self) -> int:
        """Transformer layers L."""
        return len(self.heads)

    @property
    def is_dense(self) -> bool:
        """``True`` if all layers of a kind are alike and have all their heads, as before any pruning."""
        whole = (tuple(range(self.total_heads)),) * self.num_layers
        alike = len(set(self.ffn)) == len(set(self.conv_channels)) == 1
        return self.heads == whole and alike and bool(self.ffn[0])

    def frames(self, samples: int) -> int:
        """Return the number of frames F of a waveform with that many samples."""
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    @property
    def pos_conv_reach(self) -> int:
        """Frames of padding that influence an utterance.

        Only the first convolution reads zeros there, and none that comes after the shift of a BatchNorm.
        """
        return (self.pos_conv_depth - 1 + self.pos_conv_batch_norm) * (self.pos_conv_kernel // 2)

    @property
    def min_samples(self) -> int:
        """Samples needed for one frame (the receptive field, 400 for all published models)."""
        samples = 1
        for kernel, stride in zip(reversed(self.conv_kernels), reversed(self.conv_strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def stride(self) -> int:
        """Samples from one frame to the next (320 for all published models)."""
        return math.prod(self.conv_strides)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or YAML."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return the values by which digests tell shapes apart.

        Fields that came later are left out where they have their first meaning, so that digests that were
        made before them stay the same.
        """
        return {name: v for name, v in self.to_dict().items() if _LATER.get(name, ...) != v}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ConfigError: listing every unknown, missing or wrong field.
        """
        what = "model configuration"
        ConfigError.raise_for(what, _length_faults(values))
        return from_dict(cls, with_later_fields(values), what, complete=True, strict=True)


def with_later_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the fields that earlier checkpoints did not have yet, with the values that they meant."""
    return {"normalize_eps": 1e-5, **_LATER, **values}


def _length_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields with more values than any model has, before each of them is looked at."""
    limits = {
        "conv_channels": MAX_CONVOLUTIONS,
        "conv_kernels": MAX_CONVOLUTIONS,
        "conv_strides": MAX_CONVOLUTIONS,
        "ffn": MAX_LAYERS,
        "heads": MAX_LAYERS,
    }
    for name, most in limits.items():
        value = values.get(name)
        if isinstance(value, list | tuple) and len(value) > most:
            yield f"{name} has {len(value)} values, allowed: up to {most}"
        elif name == "heads" and isinstance(value, list | tuple):
            longest = max((len(ids) for ids in value if isinstance(ids, list | tuple)), default=0)
            if longest > MAX_HEADS:
                yield f"heads has {longest} values in a layer, allowed: up to {MAX_HEADS}"


def dense_heads(layers: int, heads: int) -> tuple[Heads, ...]:
    """Return the head ids of a model that is not pruned."""
    return (tuple(range(heads)),) * layers
