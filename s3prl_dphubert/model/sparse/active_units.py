"""The units of a group that a training step computes, and weights cut to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

STEP = 16  # matrix products of other widths than multiples of it take up to twice the time


@dataclass(frozen=True)
class ActiveUnits:
    """Units of a group that a training step computes: all open ones, and some closed ones as padding.

    Args:
        index: (N',) indices of the units; ``None`` for all N.
        mask: (N',) mask of the units; ``None`` if the group has none.
    """

    index: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, mask: Tensor | None, step: int = STEP, skip: bool = True) -> ActiveUnits:
        """Choose units by a mask; there may be none left.

        Args:
            mask: (N,), where 0 closes a unit.
            step: choose a multiple of this number of units, or all N.
            skip: leave closed units out.
        """
        if mask is None or not skip:
            return cls(None, mask)
        count = -(-int(mask.count_nonzero()) // step) * step
        if count >= len(mask):
            return cls(None, mask)
        index = mask.detach().topk(count).indices.sort().values
        return cls(index, mask[index])

    @property
    def filled(self) -> bool:
        """Return whether closed units are among them."""
        return self.mask is not None and not bool((self.mask > 0).all())

    def cut(self, weight: Tensor, dim: int = 0) -> Tensor:
        """Select the weights of these units along a dimension."""
        return weight if self.index is None else _Cut.apply(weight, dim, self.index)

    def scale(self, weight: Tensor, dim: int) -> Tensor:
        """Select the weights that read the outputs of these units, and multiply the mask into them."""
        weight = self.cut(weight, dim)
        if self.mask is None:
            return weight
        return weight * self.mask.view([-1 if i == dim else 1 for i in range(weight.ndim)])

    def repeat(self, times: int) -> ActiveUnits:
        """Return the same choice for weights that have ``times`` rows for each unit."""
        if self.index is None:
            index = None
        else:
            index = (self.index[:, None] * times + torch.arange(times, device=self.index.device)).flatten()
        return ActiveUnits(index, None if self.mask is None else self.mask.repeat_interleave(times))


class _Cut(torch.autograd.Function):
    """``index_select`` whose gradient is copied rather than added, since no index comes twice."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dim: int, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.dim = weight.shape, dim
        return weight.index_select(dim, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        whole = gradients[0].new_zeros(ctx.shape)
        return whole.index_copy_(ctx.dim, index, gradients[0]), None, None
