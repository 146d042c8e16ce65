"""Length-bucketed batches, each a pure function of (manifest, configuration, index)."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..constants import SAMPLE_RATE
from ..errors import ConfigError, DataError
from ..utils.config_io import is_int, is_number
from .audio import TOLERANCE, read
from .manifest import Manifest, Skipped

log = logging.getLogger(__name__)
# Streams of random numbers. Both are named: numpy seeds (seed, 1) and (seed, 1, 0) alike.
PLAN, CROP = 0, 1
TRIES = 10  # batches read for one: more in a row without a readable file is a lost disk, not bad files


class Batch(NamedTuple):
    """waveforms (B, T) float32 at 16 kHz, lengths (B,) samples, paths, files left out, and 16 bytes for each
    utterance by which its crop is known, where crops are fixed."""

    waveforms: Tensor
    lengths: Tensor
    paths: tuple[str, ...]
    failed: tuple[Skipped, ...] = ()
    keys: tuple[bytes, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return self._replace(waveforms=self.waveforms.to(device), lengths=self.lengths.to(device))

    def start(self, device: torch.device) -> Batch:
        """Send it to a GPU without waiting for its arrival; on the CPU it stays as it is."""
        if device.type != "cuda":
            return self
        waveforms, lengths = (part.pin_memory() for part in (self.waveforms, self.lengths))
        return self._replace(
            waveforms=waveforms.to(device, non_blocking=True), lengths=lengths.to(device, non_blocking=True)
        )


@dataclass(frozen=True)
class BatchConfig:
    """How utterances are grouped.

    Args:
        seconds_per_batch: audio a micro-batch holds at most, counted before cropping.
        min_seconds: shorter utterances are left out.
        max_seconds: longer ones are cropped to this, at random.
        buckets: groups of like length, spaced evenly on a logarithmic scale.
        seed: of order and crops.
        crops: ``random``, in other batches and at other places in each epoch; or ``fixed``, the batches
            and crops of the first epoch in another order, whose targets can be kept.
    """

    seconds_per_batch: float = 160.0
    min_seconds: float = 2.0
    max_seconds: float = 15.6
    buckets: int = 1000
    seed: int = 0
    crops: str = "random"

    def __post_init__(self) -> None:
        names = [name for name in self.__dataclass_fields__ if name != "crops"]
        faults = [fault for name in names if (fault := self._type_fault(name))]
        if self.crops not in ("random", "fixed"):
            faults.append(f"crops is {self.crops!r}, allowed: random, fixed")
        ConfigError.raise_for("batches", faults or self._range_faults())

    def _type_fault(self, name: str) -> str:
        value, whole = getattr(self, name), name in ("buckets", "seed")
        if (is_int(value) if whole else is_number(value)) and math.isfinite(value):
            return ""
        return f"{name} is {value!r}, allowed: a {'whole' if whole else 'finite'} number"

    def _range_faults(self) -> list[str]:
        faults = []
        for name in ("seconds_per_batch", "min_seconds"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name)}, allowed: more than 0")
        if self.max_seconds < self.min_seconds:
            faults.append(
                f"max_seconds is {self.max_seconds}, allowed: min_seconds ({self.min_seconds}) or more"
            )
        if self.seconds_per_batch < self.max_seconds:
            faults.append(f"seconds_per_batch is {self.seconds_per_batch}, allowed: max_seconds or more")
        if self.buckets < 1:
            faults.append(f"buckets is {self.buckets}, allowed: 1 or more")
        if self.seed < 0:
            faults.append(f"seed is {self.seed}, allowed: 0 or more")
        return faults


class BatchStream(Dataset[Batch]):
    """Endless micro-batches by global index; epochs follow one another.

    What lies at an index depends on the manifest and the configuration alone, so any number of
    processes can share the indices out, each reading its own, and go on at any of them.

    ``failures`` lists the files that this process left out; a worker of a loader has its own list, so
    every batch carries its own in ``failed``.

    Raises:
        DataError: no utterance is long enough.
    """

    def __init__(self, manifest: Manifest, config: BatchConfig) -> None:
        self.config = config
        shortest = config.min_seconds * SAMPLE_RATE
        self.entries = [entry for entry in manifest.entries if entry.samples >= shortest]
        if not self.entries:
            raise DataError(f"no utterance lasts {config.min_seconds:g} s (min_seconds) or more")
        longest = int(config.max_seconds * SAMPLE_RATE)
        self.lengths = np.array([min(entry.samples, longest) for entry in self.entries])
        self.failures: list[Skipped] = []
        self.ends: list[int] = []  # first index after each epoch seen so far
        self._plans: dict[int, list[list[int]]] = {}  # the last two only: memory must not grow by the epoch

    def plan(self, epoch: int) -> list[list[int]]:
        """Batches of one epoch as lists of utterance indices; every utterance occurs once."""
        config = self.config
        if epoch and config.crops == "fixed":
            first = self.plan(0)
            return [
                first[i] for i in np.random.default_rng((config.seed, PLAN, epoch)).permutation(len(first))
            ]
        random = np.random.default_rng((config.seed, PLAN, epoch))
        low, high = np.log(config.min_seconds * SAMPLE_RATE), np.log(config.max_seconds * SAMPLE_RATE)
        place = (np.log(self.lengths) - low) / max(high - low, 1e-9)
        bucket = np.clip((place * config.buckets).astype(int), 0, config.buckets - 1)
        order = np.lexsort((random.random(len(bucket)), bucket))
        batches: list[list[int]] = []
        current: list[int] = []
        longest = 0
        for index in order.tolist():
            longest = max(longest, int(self.lengths[index]))
            if current and (len(current) + 1) * longest > config.seconds_per_batch * SAMPLE_RATE:
                batches.append(current)
                current, longest = [], int(self.lengths[index])
            current.append(index)
        batches.append(current)
        return [batches[i] for i in random.permutation(len(batches))]

    def members(self, index: int) -> list[int]:
        """Utterances of a global micro-batch.

        Raises:
            IndexError: the index is negative; an endless stream has no end to count from.
        """
        if index < 0:
            raise IndexError(f"index is {index}, allowed: 0 or more")
        while not self.ends or index >= self.ends[-1]:
            self.ends.append((self.ends[-1] if self.ends else 0) + len(self._recall(len(self.ends))))
        epoch = int(np.searchsorted(self.ends, index, side="right"))
        return self._recall(epoch)[index - (self.ends[epoch - 1] if epoch else 0)]

    def _recall(self, epoch: int) -> list[list[int]]:
        if epoch not in self._plans:
            while len(self._plans) > 1:
                del self._plans[next(iter(self._plans))]
            self._plans[epoch] = self.plan(epoch)
        return self._plans[epoch]

    def __getitem__(self, index: int) -> Batch:
        """Read a micro-batch, every utterance cropped at random to the shortest.

        Where none of its files can be read, the next batch that has one stands in for it, so that
        every process takes as many steps as the others.

        Raises:
            DataError: none of ``TRIES`` batches in a row has a file that can be read.
        """
        failed: tuple[Skipped, ...] = ()
        for place in range(index, index + TRIES):
            batch = self.attempt(place)
            failed += batch.failed
            if batch.paths:
                return batch._replace(failed=failed)
        raise DataError(f"no file of {TRIES} batches in a row can be read, the first: {failed[0].reason}")

    def attempt(self, index: int) -> Batch:
        """Read the files of a micro-batch that can be read, maybe none (then T is 0)."""
        members, fixed = self.members(index), self.config.crops == "fixed"
        # Fixed crops follow the first member, which the batch has in every epoch.
        random = np.random.default_rng((self.config.seed, CROP, members[0] if fixed else index))
        length = int(min(self.lengths[i] for i in members))
        rows, paths, failed, keys = [], [], [], []
        for place, i in zip(random.random(len(members)), members, strict=True):
            entry = self.entries[i]
            start = int(place * (entry.samples - length + 1))
            try:
                audio = read(entry.path, start, length)
                if len(audio) < length - TOLERANCE:
                    raise DataError(f"{entry.path}: ends early, its header promised {entry.samples} samples")
            except DataError as error:
                failed.append(Skipped(entry.path, str(error)))
                log.warning("left out: %s", error)
                continue
            rows.append(torch.from_numpy(np.pad(audio, (0, length - len(audio)))))
            paths.append(entry.path)
            if fixed:
                crop = f"{entry.path}\n{start}\n{length}".encode()
                keys.append(hashlib.blake2b(crop, digest_size=16).digest())
        self.failures += failed
        waveforms = torch.stack(rows) if rows else torch.empty(0, 0)
        lengths = torch.full((len(rows),), length, dtype=torch.int64)
        return Batch(waveforms, lengths, tuple(paths), tuple(failed), tuple(keys))


def _whole(batch: Any) -> Any:
    return batch


class _Order(torch.utils.data.Sampler[int]):
    def __init__(self, indices: range) -> None:
        self.indices = indices

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def loader(
    stream: BatchStream, start: int, stop: int, num_workers: int = 0, stride: int = 1, offset: int = 0
) -> DataLoader[Batch]:
    """Yield the micro-batches ``start`` to below ``stop`` that are ``offset`` modulo ``stride``, in order.

    A micro-batch thus belongs to the same process wherever a run is resumed.
    """
    order = _Order(range(start + (offset - start) % stride, stop, stride))
    # Its own generator: a loader else draws from torch's global one and moves the caller's random numbers.
    own = torch.Generator().manual_seed(0)
    return DataLoader(
        stream, batch_size=None, sampler=order, num_workers=num_workers, collate_fn=_whole, generator=own
    )


def validation_batches(manifest: Manifest, config: BatchConfig, limit: int) -> list[Batch]:
    """The first ``limit`` batches of a fixed order that can be read, the same every time.

    Raises:
        DataError: no file of any batch can be read.
    """
    stream = BatchStream(manifest, config)
    batches = (stream.attempt(index) for index in range(len(stream.plan(0))))
    found = list(itertools.islice((batch for batch in batches if batch.paths), limit))
    if not found:
        raise DataError(f"no file for validation can be read, the first: {stream.failures[0].reason}")
    return found
