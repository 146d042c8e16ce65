"""The optimizer that s3prl's runner steps."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..training.optimizer import ScheduledAdamW


class GuardedAdamW(ScheduledAdamW):
    """Takes no step on a loss or gradient that is not finite.

    s3prl's runner holds back a step whose gradient norm is NaN, but not one whose norm is infinite.
    """

    finite = True
    """Whether the losses of this update were finite; set before each update."""
    stepped = False
    """Whether this update has been made."""

    def schedule(self, update: int) -> None:
        """Begin an update: set its learning rates."""
        super().schedule(update)
        self.finite, self.stepped = True, False

    def step(self, closure: Any = None) -> Any:
        """Step, if what s3prl clipped was finite."""
        if not self.finite or not self._clipped_finite():
            return None
        self.stepped = True
        return super().step(closure)

    def _clipped_finite(self) -> bool:
        """Clipping by an infinite norm leaves NaN where a gradient was infinite, and 0 everywhere else."""
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        return math.isfinite(norm) and norm > 0
