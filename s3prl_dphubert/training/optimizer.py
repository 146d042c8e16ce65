"""The optimizer of both stages: AdamW without decay, its learning rates functions of the update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class ScheduledAdamW(torch.optim.AdamW):
    """AdamW whose groups rise to their own peaks and fall to 0 together.

    Args:
        groups: each names its peak ``base_lr`` and may ``maximize``.
        warmup: updates in which the learning rates rise.
        updates: all updates.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], warmup: int, updates: int) -> None:
        plain = [dict(group) for group in groups]
        self.bases = [group.pop("base_lr") for group in plain]
        self.warmup, self.updates = warmup, updates
        super().__init__(plain, lr=0.0, weight_decay=0.0, fused=True)

    def schedule(self, update: int) -> None:
        """Set the learning rates of an update, counted from 0."""
        for group, base in zip(self.param_groups, self.bases, strict=True):
            group["lr"] = linear_schedule(update, base, self.warmup, self.updates)

    def step_unless(self, bad: Tensor) -> None:
        """Step, unless a flag (0-d, on the device) is set; the host does not ask for it."""
        self.grad_scale, self.found_inf = None, bad.float()
        try:
            self.step()
        finally:
            del self.grad_scale, self.found_inf

    def get_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.param_groups]


def linear_schedule(update: int, base: float, warmup: int, updates: int) -> float:
    """Learning rate of an update counted from 0: linear to ``base``, then linear to 0.

    The first update has ``base / warmup``, update ``warmup - 1`` has ``base`` and the last
    one 0, as in the published recipe.
    """
    step = update + 1
    if step <= warmup:
        return base * (step / warmup)
    if step >= updates:
        return 0.0
    return base * ((updates - step) / (updates - warmup))
