"""Replacement for the class of catalyst that s3prl's keyword spotting uses."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DistributedSampler, Sampler


class DistributedSamplerWrapper(DistributedSampler):
    """One process's share of the indices that another sampler draws, drawn anew each epoch.

    All processes draw under the same seed, so no index of a draw is lost or used twice, apart from the
    few that pad the last share. A sampler with its own generator must be seeded alike in all processes.

    Args:
        sampler: sized sampler that draws the indices.
        num_replicas: number of processes; that of the process group by default.
        rank: rank of this process; that in the process group by default.
        shuffle: shuffle the draw before it is divided.
    """

    def __init__(
        self, sampler: Sampler, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True
    ) -> None:
        super().__init__(range(len(sampler)), num_replicas, rank, shuffle)  # type: ignore[arg-type]
        self.sampler = sampler

    def __iter__(self) -> Iterator[int]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.epoch)
            draw = list(self.sampler)
        return iter([draw[index] for index in super().__iter__()])
