"""Masks that close units of an encoder without cutting them out."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Masks:
    """Soft or hard masks in [0, 1] for the units of a model; an absent entry leaves all open.

    Args:
        conv: conv layer index -> (C,) for its output channels.
        heads: Transformer layer index -> (H,) for its kept heads, in their stored order.
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
