"""SoX's effect ``silence``: removes silence at the beginning, at the end, or between sounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arguments import Duration, EffectError, Threshold, duration, integer, threshold
from .signal import Signal

WINDOWS = 50  # per second: loudness is measured over 20 ms
BLOCK = 2048  # frames measured at a time: few, since a restart within them wastes the rest
FORM = (
    "above-periods [duration threshold] [below-periods duration threshold], where above-periods 0 goes "
    "without duration and threshold and below-periods is not 0"
)


@dataclass(frozen=True)
class Rule:
    """Number of periods, their duration, and the threshold that they are above or below."""

    periods: int
    duration: Duration
    threshold: Threshold

    @classmethod
    def parse(cls, periods: int, length: str, level: str, side: str) -> Rule:
        """Parse the arguments of a rule; ``side`` names it in messages."""
        return cls(
            periods,
            duration(length, f"duration {side}", bare_is_samples=True),
            threshold(level, f"threshold {side}"),
        )

    def frames(self, rate: int) -> int:
        """Return the frames of a period, at least one."""
        return max(1, self.duration.samples(rate))


# SoX waits for this after a silence if there is no rule for the beginning.
ANY_SOUND = Rule(1, Duration(0, in_seconds=False), Threshold(0.0))


@dataclass(frozen=True)
class Silence:
    """The effect with its arguments.

    Attributes:
        above: sound that ends the removal at the beginning; ``None`` keeps the beginning.
        below: silence at which the audio ends; ``None`` keeps the rest.
        again: after that silence continue as at the beginning, rather than end the audio.
    """

    above: Rule | None
    below: Rule | None
    again: bool

    @classmethod
    def parse(cls, arguments: list[str]) -> Silence:
        """Parse ``above-periods [duration threshold] [below-periods duration threshold]``."""
        if "-l" in arguments:
            raise EffectError("-l is not supported: SoX repeats audio there")
        above = below = None
        periods = integer(arguments[0], "above-periods", least=0) if arguments else 0
        rest = arguments[1:]
        if periods and len(rest) >= 2:
            above = Rule.parse(periods, rest[0], rest[1], "above")
            rest = rest[2:]
        count = 0
        if len(rest) == 3 and bool(above) == bool(periods):
            count = integer(rest[0], "below-periods")
            if count:
                below = Rule.parse(abs(count), rest[1], rest[2], "below")
                rest = []
        if rest or not arguments or bool(above) != bool(periods):
            raise EffectError(f"arguments are {' '.join(arguments)!r}, allowed: {FORM}")
        return cls(above, below, again=count < 0)

    def __call__(self, signal: Signal) -> Signal:
        pieces = [signal.samples[:, start:end] for start, end in self._ranges(signal)]
        return signal.like(np.concatenate(pieces, axis=1) if pieces else signal.samples[:, :0])

    def _ranges(self, signal: Signal) -> list[tuple[int, int]]:
        """Return the ranges of frames that stay, as starts and ends."""
        loudness = _Loudness(signal)
        frames = signal.samples.shape[1]
        ranges: list[tuple[int, int]] = []
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
                ranges.append((start, frames))
                break
            at = last + 1
            ranges.append((start, at - self.below.frames(signal.rate)))
            if not self.again:
                break
            loudness.restart(at)
            above = self.above or ANY_SOUND
        return ranges


class _Loudness:
    """Root mean square of all channels over the last 20 ms, computed block by block from a frame on.

    The sum runs in float64 sample by sample, with the oldest out and the newest in, to round as SoX does.
    """

    def __init__(self, signal: Signal):
        channels, self._frames = signal.samples.shape
        self._samples = signal.samples.T.reshape(-1)  # (T * C,), channel by channel
        self._channels, self._rate = channels, signal.rate
        self._window = max(1, signal.rate * channels // WINDOWS)  # samples, not always whole frames
        self.restart(0)

    def restart(self, at: int) -> None:
        """Start again at a frame, with an empty window."""
        self._origin = self._start = self._end = at
        self._total = 0.0  # sum of the squares in the window that ends before frame _end
        self._levels = np.empty((0, self._channels))

    def find(self, at: int, rule: Rule, silent: bool) -> int | None:
        """Return the last frame of the rule's last period, or ``None``.

        Args:
            at: frame to begin with; not before that of the last call.
            rule: the periods, which must be whole and may follow each other without a gap.
            silent: find silence, for which one silent channel suffices, rather than sound in any channel.
        """
        least, length, remaining = rule.threshold.least, rule.frames(self._rate), rule.periods
        run = 0  # frames of an unfinished period that lie right before ``at``
        while at < self._frames:
            levels = self._ahead(at)
            matches: np.ndarray = np.any(levels < least if silent else levels >= least, axis=1)
            flips = np.flatnonzero(matches[1:] != matches[:-1]) + 1
            bounds = np.concatenate([[0], flips, [len(matches)]])
            first = 0 if matches[0] else 1
            starts, stops = bounds[first:-1:2].copy(), bounds[first + 1 :: 2]
            if matches[0]:
                starts[0] -= run
            periods = (stops - starts) // length
            counts = np.cumsum(periods)
            index = int(np.searchsorted(counts, remaining))
            if index < len(counts):
                missing = remaining - (counts[index] - periods[index])
                return int(at + starts[index] + missing * length - 1)
            remaining -= int(counts[-1]) if len(counts) else 0
            run = int(stops[-1] - starts[-1]) % length if matches[-1] else 0
            at += len(matches)
        return None

    def _ahead(self, at: int) -> np.ndarray:
        """Return the levels (n, C) of frame ``at`` and those after it in the current block."""
        if at == self._end:
            self._advance()
        return self._levels[at - self._start :]

    def _advance(self) -> None:
        """Measure the next block."""
        self._start, self._end = self._end, min(self._end + BLOCK, self._frames)
        start, end = self._start * self._channels, self._end * self._channels
        new = np.square(self._samples[start:end], dtype=np.float64)
        old = np.zeros_like(new)
        full = max(start, self._origin * self._channels + self._window)  # first sample that drops one
        if full < end:
            leaving = self._samples[full - self._window : end - self._window]
            old[full - start :] = np.square(leaving, dtype=np.float64)
        sums = np.empty(2 * len(new) + 1)
        sums[0] = self._total
        np.negative(old, out=sums[1::2])
        sums[2::2] = new
        np.cumsum(sums, out=sums)
        self._total = sums[-1]
        # Each channel is measured as if its sample came first and replaced the oldest one.
        squares = sums[1 :: 2 * self._channels, None] + new.reshape(-1, self._channels)
        self._levels = np.sqrt(np.maximum(squares, 0.0) / self._window)
