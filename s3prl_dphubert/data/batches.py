"""Length-bucketed batches; each depends on the manifest, the configuration and its index alone."""

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
from ..utils.device_copies import start_copy
from .audio import TOLERANCE, read
from .manifest import Manifest, Skipped

log = logging.getLogger(__name__)
# Streams of random numbers. The first is 0 rather than absent: numpy seeds (seed, 1) and (seed, 1, 0) alike.
PLAN, CROP = 0, 1
READ_TIMEOUT = 1800  # seconds for a batch; a process that never gets one would hold up all others
TRIES = 10  # more batches in a row without a readable file mean a lost disk rather than bad files


class Batch(NamedTuple):
    """A micro-batch.

    Attributes:
        waveforms: (B, T), float32 at 16 kHz.
        lengths: (B,) valid samples.
        paths: of the B utterances.
        failed: files that could not be read.
        keys: 16 bytes for each utterance that identify its crop; none unless crops are fixed.
    """

    waveforms: Tensor
    lengths: Tensor
    paths: tuple[str, ...]
    failed: tuple[Skipped, ...] = ()
    keys: tuple[bytes, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its waveforms on a device; its lengths stay where the host reads them.

        The copy to a GPU is started, but not waited for.
        """
        if self.waveforms.device.type == device.type:
            return self
        return self._replace(waveforms=start_copy(self.waveforms, device))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; a loader's thread does this ahead of the training."""
        return self._replace(waveforms=self.waveforms.pin_memory())


@dataclass(frozen=True)
class BatchConfig:
    """Grouping of utterances into micro-batches.

    Args:
        seconds_per_batch: maximum seconds of audio in a micro-batch, before cropping.
        min_seconds: shorter utterances are left out.
        max_seconds: longer recordings are cut into the fewest equal segments of at most this, each of which
            counts as an utterance, so that an epoch hears all of them.
        buckets: number of groups of similar length, spaced evenly on a logarithmic scale.
        seed: seed of order and crops.
        crops: ``random``: new batches and crops in each epoch; ``fixed``: the batches and crops of the first
            epoch in another order, so that teacher targets can be cached.

    Raises:
        ConfigError: a field is invalid; the message lists all of them.
    """

    seconds_per_batch: float = 160.0
    min_seconds: float = 2.0
    max_seconds: float = 15.6
    buckets: int = 1000
    seed: int = 0
    crops: str = "random"

    def __post_init__(self) -> None:
        faults = []
        for name in ("seconds_per_batch", "min_seconds", "max_seconds"):
            value = getattr(self, name)
            if not is_number(value) or not math.isfinite(value):
                faults.append(f"{name} is {value!r}, allowed: a finite number")
        for name in ("buckets", "seed"):
            if not is_int(getattr(self, name)):
                faults.append(f"{name} is {getattr(self, name)!r}, allowed: a whole number")
        if self.crops not in ("random", "fixed"):
            faults.append(f"crops is {self.crops!r}, allowed: random, fixed")
        ConfigError.raise_for("batches", faults or self._range_faults())

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
    """Endless micro-batches by global index, epoch after epoch.

    A batch depends on the manifest, the configuration and its index alone, so any number of processes can
    divide the indices among them, and resume at any index.

    ``failures`` lists the files that this process could not read. Workers of a loader have lists of their
    own, so every batch carries its own in ``failed``.

    Attributes:
        entries: utterances and recordings that are long enough.
        owners: (N,) index in ``entries`` of each of the N segments.
        starts: (N,) first sample of each segment.
        lengths: (N,) samples of each segment, at most ``max_seconds``.

    Raises:
        DataError: no utterance is long enough.
    """

    def __init__(self, manifest: Manifest, config: BatchConfig) -> None:
        self.config = config
        shortest = config.min_seconds * SAMPLE_RATE
        self.entries = [entry for entry in manifest.entries if entry.samples >= shortest]
        if not self.entries:
            raise DataError(f"no utterance lasts {config.min_seconds:g} s (min_seconds) or more")
        samples = np.array([entry.samples for entry in self.entries])
        counts = -(-samples // max(1, int(config.max_seconds * SAMPLE_RATE)))
        self.owners = np.repeat(np.arange(len(samples)), counts)
        number = np.arange(len(self.owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        samples, counts = samples[self.owners], counts[self.owners]
        self.starts = number * samples // counts
        self.lengths = (number + 1) * samples // counts - self.starts
        self.failures: list[Skipped] = []
        self.ends: list[int] = []  # first index after each epoch so far
        self._plans: dict[int, list[list[int]]] = {}  # of the last two epochs, so that memory does not grow

    def plan(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch as lists of segment indices; every segment occurs once."""
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
        """Return the segment indices of a global micro-batch.

        Raises:
            IndexError: the index is negative; an endless stream has no end to count from.
        """
        if index < 0:
            raise IndexError(f"index is {index}, allowed: 0 or more")
        while not self.ends or index >= self.ends[-1]:
            self.ends.append((self.ends[-1] if self.ends else 0) + len(self._plan(len(self.ends))))
        epoch = int(np.searchsorted(self.ends, index, side="right"))
        return self._plan(epoch)[index - (self.ends[epoch - 1] if epoch else 0)]

    def _plan(self, epoch: int) -> list[list[int]]:
        """Return the :meth:`plan` of an epoch, kept in memory for the last two."""
        if epoch not in self._plans:
            while len(self._plans) > 1:
                del self._plans[next(iter(self._plans))]
            self._plans[epoch] = self.plan(epoch)
        return self._plans[epoch]

    def __getitem__(self, index: int) -> Batch:
        """Read a micro-batch, every segment cropped at random to the shortest.

        If none of its files can be read, the next batch with a readable file replaces it, so that every
        process takes the same number of steps.

        Raises:
            DataError: none of :data:`TRIES` batches in a row has a readable file.
        """
        failed: tuple[Skipped, ...] = ()
        for place in range(index, index + TRIES):
            batch = self.attempt(place)
            failed += batch.failed
            if batch.paths:
                return batch._replace(failed=failed)
        raise DataError(f"no file of {TRIES} batches in a row can be read, the first: {failed[0].reason}")

    def attempt(self, index: int) -> Batch:
        """Read the readable files of a micro-batch; without any, B and T are 0."""
        members, fixed = self.members(index), self.config.crops == "fixed"
        # Fixed crops follow the first member, which the batch has in every epoch.
        random = np.random.default_rng((self.config.seed, CROP, members[0] if fixed else index))
        length = int(min(self.lengths[i] for i in members))
        rows, paths, failed, keys = [], [], [], []
        for place, i in zip(random.random(len(members)), members, strict=True):
            entry = self.entries[self.owners[i]]
            start = int(self.starts[i]) + int(place * (int(self.lengths[i]) - length + 1))
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


def epoch_share(manifest: Manifest, config: BatchConfig) -> str:
    """Return a line with the share of the hours that an epoch hears; empty if it hears all of them."""
    short = [entry.samples for entry in manifest.entries if entry.samples < config.min_seconds * SAMPLE_RATE]
    if not short:
        return ""
    hours, missing = manifest.seconds / 3600, sum(short) / SAMPLE_RATE / 3600
    return (
        f"an epoch hears {1 - missing / hours:.1%} of {hours:.2f} h: {len(short)} of {len(manifest.entries)} "
        f"utterances are shorter than {config.min_seconds:g} s (data.batch.min_seconds) and left out"
    )


def _unchanged(batch: Any) -> Any:
    return batch


def loader(
    stream: BatchStream,
    start: int,
    stop: int,
    num_workers: int = 0,
    stride: int = 1,
    offset: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Load the micro-batches of one process in order.

    Args:
        stream: all micro-batches.
        start: first index.
        stop: index after the last one.
        num_workers: processes that read; 0 reads in this one.
        stride: number of training processes.
        offset: rank of this process. It loads the indices that are ``offset`` modulo ``stride``, so that a
            micro-batch belongs to the same process wherever a run is resumed.
        pin_memory: put batches into pinned memory, for copies to a GPU that nobody waits for.
    """
    return DataLoader(
        stream,
        batch_size=None,
        sampler=range(start + (offset - start) % stride, stop, stride),
        num_workers=num_workers,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
        timeout=READ_TIMEOUT if num_workers else 0,
        # Otherwise the loader draws from torch's global generator, which changes the caller's random numbers.
        generator=torch.Generator().manual_seed(0),
    )


def validation_batches(manifest: Manifest, config: BatchConfig, limit: int) -> list[Batch]:
    """Read the first ``limit`` readable batches of a fixed order, the same every time.

    Raises:
        DataError: no file of any batch can be read.
    """
    stream = BatchStream(manifest, config)
    batches = (stream.attempt(index) for index in range(len(stream.plan(0))))
    readable = list(itertools.islice((batch for batch in batches if batch.paths), limit))
    if not readable:
        raise DataError(f"no file for validation can be read, the first: {stream.failures[0].reason}")
    return readable
