"""Data loader and optimizer in the form in which s3prl's pretraining runner uses them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..data.batches import Batch, BatchStream, loader
from ..training.optimizer import ScheduledAdamW
from ..utils.interrupts import delayed_interrupt


class EpochLoader:
    """Data loader that yields the remaining micro-batches of one epoch per iteration.

    The micro-batches are those of ``compress``, by global index. The processes that read them live on from
    one epoch to the next.

    Args:
        stream: all micro-batches.
        start: index of the first one.
        num_workers: processes that read audio.
        is_finished: returns whether the training is over; called before each micro-batch.
    """

    def __init__(
        self, stream: BatchStream, start: int, num_workers: int, is_finished: Callable[[], bool]
    ) -> None:
        self.stream, self.index, self.is_finished = stream, start, is_finished
        self.dataset = stream.plan(0)  # s3prl takes its length for the number of steps of an epoch
        with delayed_interrupt():
            self.batches = iter(loader(stream, start, sys.maxsize, num_workers))

    def __len__(self) -> int:
        return self._epoch_end() - self.index

    def __iter__(self) -> Iterator[Batch]:
        end = self._epoch_end()
        while not self.is_finished() and self.index < end:
            self.index += 1
            yield next(self.batches)

    def _epoch_end(self) -> int:
        """Return the index after the last micro-batch of the current epoch."""
        self.stream.members(self.index)  # plans the epochs up to this one
        return next(end for end in self.stream.ends if end > self.index)


class GuardedAdamW(ScheduledAdamW):
    """AdamW that takes no step on a loss or gradient that is not finite.

    s3prl's runner skips a step whose gradient norm is NaN, but not one whose norm is infinite.
    """

    loss_is_finite: bool | Tensor = True
    """True while all losses of this update are finite, on the device."""
    stepped = False
    """Set once this update has been made."""

    def schedule(self, update: int) -> None:
        """Begin an update: set its learning rates, and reset the flags."""
        super().schedule(update)
        self.loss_is_finite, self.stepped = True, False

    def step(self, closure: Any = None) -> Any:
        """Step, unless a loss or the gradient norm before clipping was not finite."""
        if not self.loss_is_finite or not self._was_norm_finite():
            return None
        self.stepped = True
        self.dense_gradients()
        return super().step(closure)

    def _was_norm_finite(self) -> bool:
        """Tell from the clipped gradients; an infinite norm leaves NaN where they were infinite, else 0."""
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        return math.isfinite(norm) and norm > 0
