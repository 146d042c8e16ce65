"""SoX's effect ``silence``: drops audio until sound begins, from where it ends, or between sounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arguments import Duration, Fault, Threshold, duration, threshold, whole
from .signal import Signal

WINDOWS = 50  # a second: loudness is judged over 20 ms
BLOCK = 2048  # frames judged in one go: few enough that a new start among them wastes little
FORM = (
    "above-periods [duration threshold] [below-periods duration threshold], where above-periods 0 goes "
    "without duration and threshold and below-periods is not 0"
)


@dataclass(frozen=True)
class Rule:
    """So many periods of that duration, above the threshold or not."""

    periods: int
    duration: Duration
    threshold: Threshold

    @classmethod
    def parse(cls, periods: int, length: str, level: str, side: str) -> Rule:
        return cls(
            periods,
            duration(length, f"duration {side}", bare_is_samples=True),
            threshold(level, f"threshold {side}"),
        )

    def frames(self, rate: int) -> int:
        """Frames that a period lasts; SoX takes none for one."""
        return max(1, self.duration.samples(rate))


# What SoX waits for after a silence if no rule for the beginning was given.
ANY_SOUND = Rule(1, Duration(0, in_seconds=False), Threshold(0.0))


@dataclass(frozen=True)
class Silence:
    """The effect with its arguments.

    Attributes:
        above: sound that ends the dropping at the beginning; ``None`` keeps the beginning.
        below: silence that ends the copying; ``None`` keeps all that follows.
        again: after that silence, go on as at the beginning, else end the audio.
    """

    above: Rule | None
    below: Rule | None
    again: bool

    @classmethod
    def parse(cls, arguments: list[str]) -> Silence:
        """Read ``above-periods [duration threshold] [below-periods duration threshold]``."""
        if "-l" in arguments:
            raise Fault("-l is not supported: SoX repeats audio there")
        above = below = None
        periods = whole(arguments[0], "above-periods", least=0) if arguments else 0
        left = arguments[1:]
        if periods and len(left) >= 2:
            above = Rule.parse(periods, left[0], left[1], "above")
            left = left[2:]
        count = 0
        if len(left) == 3 and bool(above) == bool(periods):
            count = whole(left[0], "below-periods")
            if count:
                below = Rule.parse(abs(count), left[1], left[2], "below")
                left = []
        if left or not arguments or bool(above) != bool(periods):
            raise Fault(f"arguments are {' '.join(arguments)!r}, allowed: {FORM}")
        return cls(above, below, again=count < 0)

    def __call__(self, signal: Signal) -> Signal:
        kept = [signal.samples[:, start:end] for start, end in self._kept(signal)]
        return signal.like(np.concatenate(kept, axis=1) if kept else signal.samples[:, :0])

    def _kept(self, signal: Signal) -> list[tuple[int, int]]:
        """Frames that stay, as ranges."""
        loudness = _Loudness(signal)
        frames = signal.samples.shape[1]
        kept: list[tuple[int, int]] = []
        at, above = 0, self.above
        while at < frames:
            start = at
            if above:
                last = loudness.find(at, above, silent=False)
                if last is None:
                    break
                at = last + 1
                start = at - above.frames(signal.rate)
            last = loudness.find(at, self.below, silent=True) if self.below else None
            if last is None or self.below is None:
                kept.append((start, frames))
                break
            at = last + 1
            kept.append((start, at - self.below.frames(signal.rate)))
            if not self.again:
                break
            loudness.restart(at)
            above = self.above or ANY_SOUND
        return kept


class _Loudness:
    """Root of the mean square over the last 20 ms of all channels, from a frame on, block by block.

    Sums run on in float64 sample by sample, oldest out and newest in, since that is how SoX rounds.
    """

    def __init__(self, signal: Signal):
        channels, self._frames = signal.samples.shape
        self._samples = signal.samples.T.reshape(-1)  # (T * C,), channel by channel
        self._channels, self._rate = channels, signal.rate
        self._window = max(1, signal.rate * channels // WINDOWS)  # samples, not always whole frames
        self.restart(0)

    def restart(self, at: int) -> None:
        """Begin at a frame with an empty window."""
        self._origin = self._start = self._end = at
        self._total = 0.0  # sum of the squares in the window that ends before frame _end
        self._levels = np.empty((0, self._channels))

    def find(self, at: int, rule: Rule, silent: bool) -> int | None:
        """Frame that ends the rule's last period, or ``None``.

        Args:
            at: frame to begin with; not before those of the last call.
            rule: the periods, which must be whole and may follow each other without a gap.
            silent: seek silence, which one silent channel makes, instead of sound in one channel.
        """
        least, length, left = rule.threshold.least, rule.frames(self._rate), rule.periods
        run = 0  # frames of an unfinished period that lie right before ``at``
        while at < self._frames:
            levels = self._ahead(at)
            sought: np.ndarray = np.any(levels < least if silent else levels >= least, axis=1)
            flips = np.flatnonzero(sought[1:] != sought[:-1]) + 1
            bounds = np.concatenate([[0], flips, [len(sought)]])
            first = 0 if sought[0] else 1
            starts, stops = bounds[first:-1:2].copy(), bounds[first + 1 :: 2]
            if sought[0]:
                starts[0] -= run
            periods = (stops - starts) // length
            counts = np.cumsum(periods)
            place = int(np.searchsorted(counts, left))
            if place < len(counts):
                missing = left - (counts[place] - periods[place])
                return int(at + starts[place] + missing * length - 1)
            left -= int(counts[-1]) if len(counts) else 0
            run = int(stops[-1] - starts[-1]) % length if sought[-1] else 0
            at += len(sought)
        return None

    def _ahead(self, at: int) -> np.ndarray:
        """Levels (n, C) of the frames from ``at`` on, as many as are known, but one at least."""
        if at == self._end:
            self._advance()
        return self._levels[at - self._start :]

    def _advance(self) -> None:
        """Go on to the next block."""
        self._start, self._end = self._end, min(self._end + BLOCK, self._frames)
        start, end = self._start * self._channels, self._end * self._channels
        new = np.square(self._samples[start:end], dtype=np.float64)
        old = np.zeros_like(new)
        full = max(start, self._origin * self._channels + self._window)  # first sample that pushes one out
        if full < end:
            leaving = self._samples[full - self._window : end - self._window]
            old[full - start :] = np.square(leaving, dtype=np.float64)
        sums = np.empty(2 * len(new) + 1)
        sums[0] = self._total
        np.negative(old, out=sums[1::2])
        sums[2::2] = new
        np.cumsum(sums, out=sums)
        self._total = sums[-1]
        # Each channel is judged as if its sample came first, hence took the place of the oldest.
        squares = sums[1 :: 2 * self._channels, None] + new.reshape(-1, self._channels)
        self._levels = np.sqrt(np.maximum(squares, 0.0) / self._window)
