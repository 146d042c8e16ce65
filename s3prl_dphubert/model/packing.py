"""Batches packed without padding: the utterances one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Adjacent utterances of one length in a packed batch.

    Args:
        start: row of the first frame.
        count: number of utterances.
        frames: packed frames of each.
        valid: those of them that are no padding.
    """

    start: int
    count: int
    frames: int
    valid: int

    @property
    def rows(self) -> slice:
        """Rows of the group in the packed batch."""
        return slice(self.start, self.start + self.count * self.frames)


class Packing:
    """Layout of a packed batch (N, …): its utterances one after another, the longest first.

    Args:
        valid: frames of each utterance that are no padding, in the order of the batch.
        more: frames of padding that stay after each utterance, unless it has no valid frame.
        limit: maximum number of frames of an utterance with its padding; required with ``more``.
    """

    def __init__(self, valid: Sequence[int], more: int = 0, limit: int = 0) -> None:
        self.valid, self.more = list(valid), more
        self.frames = [n and (min(n + more, limit) if more else n) for n in self.valid]
        self.order = sorted(range(len(self.valid)), key=lambda index: -self.valid[index])
        self.total = sum(self.frames)
        self.groups: list[Group] = []
        start = 0
        pairs = ((self.frames[index], self.valid[index]) for index in self.order)
        for (frames, length), members in groupby(pair for pair in pairs if pair[0]):
            self.groups.append(Group(start, len(list(members)), frames, length))
            start = self.groups[-1].rows.stop

    def utterances(self) -> Iterator[tuple[int, slice]]:
        """Yield the index in the batch and the rows in the packed batch of every utterance with frames."""
        start = 0
        for index in self.order:
            stop = start + self.frames[index]
            if stop > start:
                yield index, slice(start, stop)
            start = stop

    def move(self, x: Tensor, other: Packing) -> Tensor:
        """Repack x (N, D) for another packing (N', D): each utterance is cut or padded with zeros."""
        if other.frames == self.frames:
            return x
        moved = x.new_zeros(other.total, x.shape[-1])
        for (_, rows), (_, target) in zip(self.utterances(), other.utterances(), strict=True):
            shared = min(rows.stop - rows.start, target.stop - target.start)
            moved[target.start : target.start + shared] = x[rows.start : rows.start + shared]
        return moved

    def unpack(self, x: Tensor, frames: int) -> Tensor:
        """Unpack x (N, D) -> (B, frames, D), padded with zeros; a view if every utterance has all frames."""
        if all(length == frames for length in self.frames):
            return x.unflatten(0, (len(self.frames), frames))
        padded = x.new_zeros(len(self.frames), frames, x.shape[-1])
        for index, rows in self.utterances():
            padded[index, : self.frames[index]] = x[rows]
        return padded
