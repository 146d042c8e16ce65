"""The micro-batches of a training in the form that s3prl's runner takes them: epoch by epoch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from ..data.batches import Batch, BatchStream, loader


class Epochs:
    """What s3prl takes for a DataLoader. Each iteration gives what is left of an epoch.

    The micro-batches are those of ``compress``, by global index, and their readers live on from one
    epoch to the next.

    Args:
        stream: all micro-batches.
        start: index of the first one.
        num_workers: processes that read them.
        finished: tells whether the training wants no more; asked before each.
    """

    def __init__(
        self, stream: BatchStream, start: int, num_workers: int, finished: Callable[[], bool]
    ) -> None:
        self.stream, self.place, self.finished = stream, start, finished
        self.dataset = stream.plan(0)  # s3prl counts an epoch's steps by its length
        self.batches = iter(loader(stream, start, sys.maxsize, num_workers))

    def __len__(self) -> int:
        return self._end() - self.place

    def __iter__(self) -> Iterator[Batch]:
        end = self._end()
        while not self.finished() and self.place < end:
            self.place += 1
            yield next(self.batches)

    def _end(self) -> int:
        """First index after the epoch that comes next."""
        self.stream.members(self.place)
        return next(end for end in self.stream.ends if end > self.place)
