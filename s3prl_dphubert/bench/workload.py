"""Batches of audio that the benchmarks time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..constants import SAMPLE_RATE

MIXED = (
    15.6,
    13.7,
    11.9,
    10.0,
    8.1,
    6.3,
    4.4,
    2.5,
)  # seconds, spread like LibriSpeech's utterances


@dataclass(frozen=True)
class Workload:
    """A batch of noise.

    Args:
        name: name in tables.
        seconds: length of each utterance.
    """

    name: str
    seconds: tuple[float, ...]

    @property
    def samples(self) -> list[int]:
        """Length of each utterance at 16 kHz."""
        return [round(seconds * SAMPLE_RATE) for seconds in self.seconds]

    def batch(self) -> tuple[Tensor, Tensor | None]:
        """Return waveforms (B, T), padded with zeros, and lengths (B,), or ``None`` if all are equal."""
        samples = self.samples
        waveforms = torch.zeros(len(samples), max(samples))
        generator = torch.Generator().manual_seed(0)
        for row, length in zip(waveforms, samples, strict=True):
            row[:length] = torch.randn(length, generator=generator) / 10
        return waveforms, None if min(samples) == max(samples) else torch.tensor(samples)


BATCHES = {
    "1x4": Workload("1 × 4 s", (4.0,)),
    "1x15": Workload("1 × 15 s", (15.0,)),
    "8x10": Workload("8 × 10 s", (10.0,) * 8),
    "mixed": Workload("8 × 2.5 to 15.6 s", MIXED),
}
"""Name on the command line -> batch."""

FULL = tuple(BATCHES.values())
QUICK = (BATCHES["1x4"], Workload("4 × 2.5 to 8.1 s", MIXED[4:]))
