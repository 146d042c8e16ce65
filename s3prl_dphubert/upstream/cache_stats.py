"""What a cache of hidden states brought in this process: it is told once, when the process ends."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from ..data.feature_store import FeatureStore

PERIOD = 250_000  # utterances; no epoch of a SUPERB task has more
MISSES = 0.25  # share of a later period above which the waveforms are taken for random ones


def say(text: str) -> None:
    """A line on stderr, as everything that this package says inside s3prl; of torchrun's processes, one's."""
    if os.environ.get("RANK", "0") == "0":
        print(f"s3prl-dphubert: {text}", file=sys.stderr, flush=True)


@dataclass
class Tally:
    """Counts of utterances, and seconds.

    Attributes:
        read: utterances that came from the cache.
        computed: those that had to be computed.
        stored: those of them that are kept.
        spent: seconds for all of it: hashing, reading, computing, storing.
        computing: seconds of that in the upstream.
        saved: seconds that the utterances read had taken when they were computed.
    """

    read: int = 0
    computed: int = 0
    stored: int = 0
    spent: float = 0.0
    computing: float = 0.0
    saved: float = 0.0
    _period: int = 0
    _missed: int = 0
    _told: bool = False

    def found(self, seconds: float) -> None:
        """One utterance came from the cache that had taken so long."""
        self.saved += seconds

    def batch(self, utterances: int, computed: int, stored: int, computing: float, spent: float) -> None:
        """A batch is done."""
        self.read += utterances - computed
        self.computed += computed
        self.stored += stored
        self.computing += computing
        self.spent += spent

    def watch(self, store: FeatureStore) -> None:
        """Stop storing where waveforms keep being new after an epoch's time; tell once when it stopped."""
        seen = self.read + self.computed
        if seen // PERIOD > self._period:
            if self._period and not store.closed and self.computed - self._missed > MISSES * PERIOD:
                share = 100 * (self.computed - self._missed) / PERIOD
                store.closed = (
                    f"{share:.0f} % of the last {PERIOD:,} waveforms were new, as if cropped at random"
                )
            self._period, self._missed = seen // PERIOD, self.computed
        if store.closed and not self._told:
            self._told = True
            say(
                f"no more hidden states are stored: {store.closed}; those that are not are computed each time"
            )

    @property
    def speedup(self) -> float:
        """How many times longer the upstream alone would have taken."""
        return (self.saved + self.computing) / self.spent if self.spent else 1.0

    def report(self) -> None:
        """Say what it brought, unless there was no more than s3prl's first look at the upstream."""
        if self.read + self.computed > 1:
            alone = self.saved + self.computing
            say(
                f"hidden states of {self.read:,} utterances were read and of {self.computed:,} computed "
                f"({self.stored:,} stored): {self.spent:.1f} s instead of {alone:.1f} s, "
                f"speed-up of the upstream {self.speedup:.1f}"
            )
