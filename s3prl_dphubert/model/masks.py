"""Masks that close units of an encoder without cutting them out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


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
