"""Any sampler, shared out over the processes of a distributed run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DistributedSampler, Sampler


class DistributedSamplerWrapper(DistributedSampler):
    """Each process's share of one draw of another sampler; a new draw every epoch.

    Stands in for catalyst's class of this name, which KS uses with its weighted sampler. All processes
    draw under one seed, so that no index of a draw is missed or used twice (but for the few that fill
    the last share up). A sampler with a generator of its own must have it seeded alike everywhere.

    Args:
        sampler: what draws the indices; it has a length.
        num_replicas: processes; the process group's by default.
        rank: which of them this is; the process group's by default.
        shuffle: whether to shuffle the draw before it is shared out.
    """

    def __init__(
        self, sampler: Sampler, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True
    ) -> None:
        super().__init__(range(len(sampler)), num_replicas, rank, shuffle)  # type: ignore[arg-type]
        self.sampler = sampler

    def __iter__(self) -> Iterator[int]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.epoch)
            drawn = list(self.sampler)
        return iter([drawn[index] for index in super().__iter__()])
