"""Sum of the gradients of all processes, sent while the backward pass still computes others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .distributed import Processes, buckets


class _Bucket:
    """Parameters whose gradients lie one after another in one tensor, and are sent together."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.flat = parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters))
        self.missing = len(parameters)
        self.work: Any = None

    def reset(self) -> None:
        """Make all gradients zero views of the tensor."""
        self.flat.zero_()
        self.missing, self.work = len(self.parameters), None
        parts = self.flat.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)


class GradientExchange:
    """Adds up gradients over processes, a bucket of parameters at a time (Li et al. 2020, section 3.2).

    A bucket is sent as soon as the last backward pass of an update has completed it and all before it, so
    that every process sends the buckets in one order. A parameter that took no part has the gradient 0.

    Args:
        parameters: all optimized parameters, those first whose gradients the backward pass computes first.
        processes: all processes; their number is more than 1.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], processes: Processes) -> None:
        self.processes = processes
        self.buckets = [_Bucket(members) for members in buckets(parameters)]
        owners = ((p, bucket) for bucket in self.buckets for p in bucket.parameters)
        self._bucket_of = {id(parameter): bucket for parameter, bucket in owners}
        self._hooks = [p.register_post_accumulate_grad_hook(self._complete) for p in parameters]
        self._sent = 0
        self._flag: Tensor | None = None  # while the last backward pass of an update runs

    def reset(self) -> None:
        """Begin an update: set all gradients to 0."""
        self._sent, self._flag = 0, None
        for bucket in self.buckets:
            bucket.reset()

    def start(self, flag: Tensor) -> None:
        """Send gradients during the next backward pass, the last one of the update.

        Args:
            flag: added to one gradient (0-d): 0, or NaN, which it carries to all processes.
        """
        self._flag = flag

    def finish(self) -> None:
        """Send the buckets that the backward pass left incomplete, and wait for all of them.

        Raises:
            RunError: another process was lost.
        """
        while self._sent < len(self.buckets):
            self._send()
        self._flag = None
        for bucket in self.buckets:
            self.processes.finish_sum(bucket.work)

    def close(self) -> None:
        """Let go of the parameters."""
        for hook in self._hooks:
            hook.remove()

    def _complete(self, parameter: Tensor) -> None:
        if self._flag is not None:
            self._bucket_of[id(parameter)].missing -= 1
            while self._sent < len(self.buckets) and not self.buckets[self._sent].missing:
                self._send()

    def _send(self) -> None:
        bucket = self.buckets[self._sent]
        if self._sent == 0 and self._flag is not None:
            bucket.flat[:1] += self._flag.to(bucket.flat)
        bucket.work = self.processes.start_sum(bucket.flat)
        self._sent += 1
