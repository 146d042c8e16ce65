"""Which units of a group are computed, and weights cut to them, in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

STEP = 16  # widths that are no multiple of it make matrix products up to twice as slow


@dataclass(frozen=True)
class OpenUnits:
    """The units of a group that a step computes: all open ones, and closed ones to fill up.

    Args:
        index: (N',) their indices; ``None`` for all N.
        mask: (N',) their mask; ``None`` where the group has none.
    """

    index: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, mask: Tensor | None, step: int = STEP, skip: bool = True) -> OpenUnits:
        """Choose by a mask (N,); there may be none left.

        Args:
            mask: 0 closes a unit.
            step: the number of units is a multiple of it, or N.
            skip: leave closed units out.
        """
        if mask is None or not skip:
            return cls(None, mask)
        wanted = -(-int(mask.count_nonzero()) // step) * step
        if wanted >= len(mask):
            return cls(None, mask)
        index = mask.detach().topk(wanted).indices.sort().values
        return cls(index, mask[index])

    @property
    def filled(self) -> bool:
        """Whether closed units are among them."""
        return self.mask is not None and not bool((self.mask > 0).all())

    def cut(self, weight: Tensor, dim: int = 0) -> Tensor:
        """The weights of these units along a dimension."""
        return weight if self.index is None else _Cut.apply(weight, dim, self.index)

    def scale(self, weight: Tensor, dim: int) -> Tensor:
        """The weights that read these units' outputs, times the mask."""
        weight = self.cut(weight, dim)
        if self.mask is None:
            return weight
        return weight * self.mask.view([-1 if i == dim else 1 for i in range(weight.ndim)])

    def repeat(self, times: int) -> OpenUnits:
        """The same choice where each unit is so many rows."""
        if self.index is None:
            index = None
        else:
            index = (self.index[:, None] * times + torch.arange(times, device=self.index.device)).flatten()
        return OpenUnits(index, None if self.mask is None else self.mask.repeat_interleave(times))


class _Cut(torch.autograd.Function):
    """``index_select`` whose gradient is copied, not added: no index comes twice."""

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
