"""Optimizer of both stages: AdamW without weight decay, with a learning-rate schedule of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class ScheduledAdamW(torch.optim.AdamW):
    """AdamW whose groups warm up to their own peaks and decay linearly to 0 together.

    Args:
        groups: parameter groups; each names its peak ``base_lr`` and may ``maximize``.
        warmup: updates in which the learning rates rise.
        updates: number of updates in all.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], warmup: int, updates: int) -> None:
        own_groups = [dict(group) for group in groups]
        self.base_lrs = [group.pop("base_lr") for group in own_groups]
        self.warmup, self.updates = warmup, updates
        super().__init__(own_groups, lr=0.0, weight_decay=0.0, fused=True)

    def schedule(self, update: int) -> None:
        """Set the learning rates of an update, counted from 0."""
        for group, base in zip(self.param_groups, self.base_lrs, strict=True):
            group["lr"] = linear_schedule(update, base, self.warmup, self.updates)

    def dense_gradients(self) -> list[Tensor]:
        """Return the gradients of all parameters, in a fixed order; one that is missing becomes zeros.

        On the CPU, a layer whose units all closed in a draw takes no part in the backward pass. Neither what
        processes add up nor what AdamW steps may depend on their draws.
        """
        gradients = []
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        return gradients

    def step_unless(self, skip: Tensor) -> None:
        """Step unless a flag (0-d) is set; the flag stays on its device, so that the host need not wait."""
        self.grad_scale, self.found_inf = None, skip.float()
        try:
            self.step()
        finally:
            del self.grad_scale, self.found_inf

    def get_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [group["lr"] for group in self.param_groups]


def linear_schedule(update: int, base: float, warmup: int, updates: int) -> float:
    """Return the learning rate of an update, counted from 0: linear warm-up to ``base``, linear decay to 0.

    The first update has ``base / warmup``, update ``warmup - 1`` has ``base`` and the last one 0, as in
    the published recipe.
    """
    step = update + 1
    if step <= warmup:
        return base * (step / warmup)
    if step >= updates:
        return 0.0
    return base * ((updates - step) / (updates - warmup))
