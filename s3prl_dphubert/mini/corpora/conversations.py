"""Conversations of two voices that never met: real turns, laid beside and over each other."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from ...constants import SAMPLE_RATE
from ..utterance import Utterance, generator, shuffled

LEVEL = 0.05
"""Root mean square of a voice, before it is made up to so many dB louder or softer:"""

SPREAD = 2.5
GAP = 0.25  # seconds between words that still are one stretch of speech
SECONDS = (1.0, 6.0)


@dataclass(frozen=True)
class Turn:
    """A recording and when it begins, in seconds of the conversation; how loud, as a factor."""

    utterance: Utterance
    start: float
    gain: float

    @property
    def speech(self) -> list[tuple[float, float]]:
        """Stretches of speech in seconds of the conversation."""
        found: list[tuple[float, float]] = []
        for word in self.utterance.words:
            if found and word.start - found[-1][1] < GAP:
                found[-1] = (found[-1][0], word.end)
            else:
                found.append((word.start, word.end))
        return [(self.start + start, self.start + end) for start, end in found]


@dataclass(frozen=True)
class Conversation:
    """Turns of two voices, in the order of their beginnings."""

    name: str
    turns: tuple[Turn, ...]

    @property
    def voices(self) -> tuple[str, ...]:
        """Who speaks, in the order of the names."""
        return tuple(sorted({turn.utterance.clip.voice for turn in self.turns}))

    @property
    def clips(self) -> tuple[str, ...]:
        """What it is made of."""
        return tuple(turn.utterance.clip.path for turn in self.turns)

    @cached_property
    def samples(self) -> int:
        """Its length at 16 kHz."""
        return max(round(turn.start * SAMPLE_RATE) + turn.utterance.clip.samples for turn in self.turns)

    def render(self, voice: str | None = None) -> np.ndarray:
        """The mixture (T,), or one voice of it."""
        whole = np.zeros(self.samples, np.float32)
        for turn in self.turns:
            if voice in (None, turn.utterance.clip.voice):
                audio, first = turn.utterance.audio(), round(turn.start * SAMPLE_RATE)
                loud = float(np.sqrt(np.mean(audio**2))) or 1.0
                whole[first : first + len(audio)] += turn.gain * LEVEL / loud * audio
        return whole


def converse(
    utterances: list[Utterance], count: int, turns: int, overlap: tuple[float, float], purpose: str
) -> list[Conversation]:
    """Make conversations of all pairs of voices in turn.

    Args:
        utterances: what may be said; each is used about as often as every other of its voice.
        count: how many.
        turns: turns of each voice.
        overlap: seconds by which a turn begins before the end of the one before, from and to; negative
            is a pause.
        purpose: what random numbers depend on.
    """
    low, high = SECONDS
    queues: dict[str, list[Utterance]] = defaultdict(list)
    for u in shuffled(utterances, lambda u: u.clip.path, purpose):
        if u.words and low <= u.clip.seconds <= high:
            queues[u.clip.voice].append(u)
    enough = sorted(voice for voice, queue in queues.items() if len(queue) >= turns)
    pairs = shuffled(combinations(enough, 2), " ".join, purpose)
    used: dict[str, int] = defaultdict(int)
    made = []
    for number in range(count if pairs else 0):
        pair, name = pairs[number % len(pairs)], f"{purpose}-{number:04}"
        random = generator(name)
        gains = {voice: 10 ** (random.uniform(-SPREAD, SPREAD) / 20) for voice in pair}
        start, said = 0.0, []
        for index in range(2 * turns):
            voice = pair[index % 2]
            utterance = queues[voice][used[voice] % len(queues[voice])]
            used[voice] += 1
            said.append(Turn(utterance, start, gains[voice]))
            # Rounded to 10 ms; no earlier than the turn before it, whose voice is the other one's.
            start = round(max(start + utterance.clip.seconds - random.uniform(*overlap), start + 0.1), 2)
        made.append(Conversation(name, _apart(said)))
    return made


def _apart(said: list[Turn]) -> tuple[Turn, ...]:
    """Put turns off so that no voice speaks over itself."""
    free: dict[str, float] = defaultdict(float)
    delay, kept = 0.0, []
    for turn in said:
        voice = turn.utterance.clip.voice
        delay = max(delay, free[voice] - turn.start)
        start = round(turn.start + delay, 2)
        kept.append(Turn(turn.utterance, start, turn.gain))
        free[voice] = start + turn.utterance.clip.seconds
    return tuple(kept)
