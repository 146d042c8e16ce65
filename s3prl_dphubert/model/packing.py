"""Utterances of a padded batch, put one after another without their padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Neighbours of one length in a packed batch.

    Args:
        start: row of the first one's first frame.
        count: utterances B'.
        frames: frames of each that are packed, F'.
        valid: how many of those are no padding.
    """

    start: int
    count: int
    frames: int
    valid: int

    @property
    def rows(self) -> slice:
        """Its rows in the packed batch."""
        return slice(self.start, self.start + self.count * self.frames)


class Packing:
    """Where the frames of each utterance lie in a packed batch (N, …), longest utterance first.

    Args:
        valid: frames of each utterance that are no padding, in the batch's order.
        more: frames of padding that are kept after each utterance that has any frame.
        limit: frames that no utterance has more of; needed with ``more``.
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
        """Index in the batch and rows in the packed batch of every utterance that has frames."""
        start = 0
        for index in self.order:
            stop = start + self.frames[index]
            if stop > start:
                yield index, slice(start, stop)
            start = stop

    def move(self, x: Tensor, other: Packing) -> Tensor:
        """x (N, D) as packed here -> (N', D) as packed there, cut off or filled up with zeros."""
        if other.frames == self.frames:
            return x
        moved = x.new_zeros(other.total, x.shape[-1])
        for (_, rows), (_, places) in zip(self.utterances(), other.utterances(), strict=True):
            shared = min(rows.stop - rows.start, places.stop - places.start)
            moved[places.start : places.start + shared] = x[rows.start : rows.start + shared]
        return moved

    def unpack(self, x: Tensor, frames: int) -> Tensor:
        """x (N, D) -> (B, frames, D), zeros after what is packed; a view if all have so many frames."""
        if all(length == frames for length in self.frames):
            return x.unflatten(0, (len(self.frames), frames))
        padded = x.new_zeros(len(self.frames), frames, x.shape[-1])
        for index, rows in self.utterances():
            padded[index, : self.frames[index]] = x[rows]
        return padded
