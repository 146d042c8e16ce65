"""What a model costs: parameters and MACs, for whole units or for expected ones.

Every formula takes widths that are numbers or tensors, so that the same code counts a model
as it is and the differentiable cost of a student under its gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError
from .model.config import ModelConfig
from .model.masks import Masks

Number = Any  # an int, a float or a 0-d tensor
SAMPLE_RATE = 16_000

COUNTS = ("parameters", "published", "macs", "superb_macs")
SUPERB_SAMPLES = {
    "short": (20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120),
    "medium": (59120, 62720, 66400, 71200, 75200, 78640, 82800, 87520),
    "long": (92720, 98560, 104400, 111120, 118480, 125040, 132720, 142640),
    "longer": (154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000),
}
"""Lengths of the 32 utterances whose MACs the SUPERB challenge adds up, in four buckets."""


@dataclass(frozen=True)
class Widths:
    """How many units are open: per conv layer its channels; per Transformer layer its heads,
    feed-forward units, and the probability that each sublayer and any of its heads exists."""

    conv: list[Number]
    heads: list[Number]
    ffn: list[Number]
    attention: list[Number]
    feed_forward: list[Number]
    any_head: list[Number]


def real_widths(config: ModelConfig) -> Widths:
    """The widths of a model as it stands."""
    return Widths(
        conv=list(config.conv_channels),
        heads=[len(kept or ()) for kept in config.heads],
        ffn=[width or 0 for width in config.ffn],
        attention=[int(kept is not None) for kept in config.heads],
        feed_forward=[int(width is not None) for width in config.ffn],
        any_head=[int(bool(kept)) for kept in config.heads],
    )


def expected_widths(config: ModelConfig, open_units: dict[str, dict[int, Tensor]]) -> Widths:
    """The widths under gates: sums of the probabilities that units are open."""
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
    """The widths that remain when masked units are cut out."""
    kinds = ("conv", "heads", "ffn", "attention", "feed_forward")
    opened = {kind: {i: (m > 0).double() for i, m in getattr(masks, kind).items()} for kind in kinds}
    return expected_widths(config, opened)


def parameters(config: ModelConfig, widths: Widths | None = None, published: bool = False) -> Number:
    """Parameters of a model, ``dummy_weight`` included.

    Args:
        config: the shape before the gates.
        widths: open units; ``None`` counts the model as it stands.
        published: leave out WavLM's relative positions, as the published formula does.
    """
    w = widths or real_widths(config)
    d, hd = config.embed_dim, config.head_dim
    total: Number = 0
    before: Number = 1
    for index, channels in enumerate(w.conv):
        normed = config.extractor_mode == "layer_norm" or index == 0
        total = total + channels * (before * config.conv_kernels[index] + config.conv_bias + 2 * normed)
        before = channels
    total = total + before + 2 * before + (before + 1) * d  # scale, LayerNorm, projection
    kernel, depth = config.pos_conv_kernel, config.pos_conv_depth
    norm = kernel if depth == 1 else 0  # the magnitudes of weight norm
    total = total + depth * (d * (d // config.pos_conv_groups) * kernel + d) + norm + 2 * d
    no_table: Number = 1
    for i in range(config.num_layers):
        attention = 3 * (d + 1) * hd * w.heads[i] + (w.heads[i] * hd + 1) * d
        if config.num_buckets and not published:
            attention = attention + w.any_head[i] * (8 * hd + 8 + config.total_heads)
            no_table = no_table * (1 - w.any_head[i] * w.attention[i])
        feed_forward = (d + 1) * w.ffn[i] + (w.ffn[i] + 1) * d
        total = total + 4 * d + attention * w.attention[i] + feed_forward * w.feed_forward[i]
    if config.num_buckets and not published:
        total = total + (1 - no_table) * config.num_buckets * config.total_heads
    return total


def macs(config: ModelConfig, samples: int, widths: Widths | None = None) -> Number:
    """Multiply-accumulates of one utterance, counted as the SUPERB challenge does.

    A convolution counts frames x kernel x inputs per group x outputs, with the frames that it
    really produces: a positional one with an even kernel makes one more than it passes on.

    Args:
        config: the shape before the gates.
        samples: length of the utterance.
        widths: open units; ``None`` counts the model as it stands.
    """
    w = widths or real_widths(config)
    d, hd = config.embed_dim, config.head_dim
    total: Number = 0
    before: Number = 1
    for channels, kernel, stride in zip(w.conv, config.conv_kernels, config.conv_strides, strict=True):
        samples = max(0, (samples - kernel) // stride + 1)
        total = total + samples * kernel * before * channels
        before = channels
    t = samples
    kernel = config.pos_conv_kernel
    positions = (t + 1 - kernel % 2) * d * (d // config.pos_conv_groups) * kernel
    total = total + t * before * d + config.pos_conv_depth * positions
    for i in range(config.num_layers):
        width = w.heads[i] * hd
        attention = 4 * t * d * width + 2 * t * t * width + 4 * w.heads[i] * t * t + 4 * t * width
        total = total + attention * w.attention[i] + 2 * t * d * w.ffn[i] * w.feed_forward[i]
    return total


def superb_macs(config: ModelConfig, widths: Widths | None = None) -> dict[str, Number]:
    """Multiply-accumulates of the SUPERB challenge's utterances, summed by bucket."""
    return {
        bucket: sum(macs(config, samples, widths) for samples in lengths)
        for bucket, lengths in SUPERB_SAMPLES.items()
    }


@dataclass(frozen=True)
class Constraint:
    """A budget: the share of the teacher's cost to remove, and how it is enforced.

    Args:
        sparsity: share of the teacher that goes; 0.75 keeps a quarter.
        count: ``parameters``, or ``published`` (parameters without WavLM's relative
            positions while gated), ``macs`` of one utterance of ``seconds``, or
            ``superb_macs``, the sum over the SUPERB challenge's utterances.
        warmup: updates in which the target rises linearly from 0.
        seconds: length of the utterance whose MACs count.
        round_to: cut conv channels and feed-forward units to multiples of this, which kernels
            like (8); a group that stays whole keeps its size.
    """

    sparsity: float = 0.75
    count: str = "parameters"
    warmup: int = 5000
    seconds: float = 10.0
    round_to: int = 1

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.sparsity < 1:
            faults.append(f"sparsity is {self.sparsity}, allowed: between 0 and 1")
        if self.count not in COUNTS:
            faults.append(f"count is {self.count!r}, allowed: {', '.join(COUNTS)}")
        if self.warmup < 0:
            faults.append(f"warmup is {self.warmup}, allowed: 0 or more")
        if self.seconds <= 0:
            faults.append(f"seconds is {self.seconds}, allowed: more than 0")
        if self.round_to < 1:
            faults.append(f"round_to is {self.round_to}, allowed: 1 or more")
        ConfigError.raise_for("budget", faults)

    def cost(self, config: ModelConfig, widths: Widths | None = None) -> Number:
        """Cost in the unit of the budget."""
        if self.count == "macs":
            return macs(config, round(self.seconds * SAMPLE_RATE), widths)
        if self.count == "superb_macs":
            return sum(superb_macs(config, widths).values())
        return parameters(config, widths, published=self.count == "published" and widths is not None)

    def target(self, update: int) -> float:
        """Sparsity wanted at that update (counted from 0)."""
        if update >= self.warmup:
            return self.sparsity
        return self.sparsity * (update / self.warmup)


class Lagrangian(torch.nn.Module):
    """Penalty l1 (s - t) + l2 (s - t)^2 whose two multipliers ascend (Wang et al. 2020, eq. 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.multipliers = torch.nn.Parameter(torch.zeros(2))

    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        """Sparsity and target -> penalty, all 0-d."""
        gap = (sparsity - target).to(self.multipliers.dtype)
        return self.multipliers[0] * gap + self.multipliers[1] * gap.square()
