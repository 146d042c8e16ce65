"""Conversations assembled from turns of two voices that were recorded separately."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from ...constants import SAMPLE_RATE
from ..utterance import Utterance, generator, shuffled

LEVEL = 0.05  # root mean square of a voice before its gain
SPREAD = 2.5  # dB by which a voice is louder or softer, at most
GAP = 0.25  # seconds between two words of the same stretch of speech, at most


@dataclass(frozen=True)
class Turn:
    """A recording, the second of the conversation at which it starts, and its gain as a factor."""

    utterance: Utterance
    start: float
    gain: float

    @property
    def speech(self) -> list[tuple[float, float]]:
        """Start and end of the stretches of speech, in seconds of the conversation."""
        stretches: list[tuple[float, float]] = []
        for word in self.utterance.words:
            if stretches and word.start - stretches[-1][1] < GAP:
                stretches[-1] = (stretches[-1][0], word.end)
            else:
                stretches.append((word.start, word.end))
        return [(self.start + start, self.start + end) for start, end in stretches]


@dataclass(frozen=True)
class Conversation:
    """Turns of two voices, in the order of their starts."""

    name: str
    turns: tuple[Turn, ...]

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the speakers, sorted."""
        return tuple(sorted({turn.utterance.clip.voice for turn in self.turns}))

    @property
    def clips(self) -> tuple[str, ...]:
        """Recordings that it is made of."""
        return tuple(turn.utterance.clip.path for turn in self.turns)

    @cached_property
    def samples(self) -> int:
        """Length at 16 kHz."""
        return max(round(turn.start * SAMPLE_RATE) + turn.utterance.clip.samples for turn in self.turns)

    def render(self, voice: str | None = None) -> np.ndarray:
        """Return the mixture (T,), or one of its voices."""
        mixture = np.zeros(self.samples, np.float32)
        for turn in self.turns:
            if voice in (None, turn.utterance.clip.voice):
                audio, first = turn.utterance.audio(), round(turn.start * SAMPLE_RATE)
                level = float(np.sqrt(np.mean(audio**2))) or 1.0
                mixture[first : first + len(audio)] += turn.gain * LEVEL / level * audio
        return mixture


def converse(
    utterances: list[Utterance],
    count: int,
    turns: int,
    seconds: tuple[float, float],
    overlap: tuple[float, float],
    purpose: str,
) -> list[Conversation]:
    """Assemble conversations of all pairs of voices in turn.

    Args:
        utterances: recordings to use; those of a voice are used about equally often.
        count: number of conversations.
        turns: turns of each voice.
        seconds: length of the shortest and the longest turn.
        overlap: range of the seconds by which a turn starts before the previous one ends; negative for a
            pause.
        purpose: name that the random numbers depend on.
    """
    shortest, longest = seconds
    queues: dict[str, list[Utterance]] = defaultdict(list)
    for u in shuffled(utterances, lambda u: u.clip.path, purpose):
        if u.words and shortest <= u.clip.seconds <= longest:
            queues[u.clip.voice].append(u)
    voices = sorted(voice for voice, queue in queues.items() if len(queue) >= turns)
    pairs = shuffled(combinations(voices, 2), " ".join, purpose)
    used: dict[str, int] = defaultdict(int)
    conversations = []
    for number in range(count if pairs else 0):
        pair, name = pairs[number % len(pairs)], f"{purpose}-{number:04}"
        random = generator(name)
        gains = {voice: 10 ** (random.uniform(-SPREAD, SPREAD) / 20) for voice in pair}
        start, sequence = 0.0, []
        for index in range(2 * turns):
            voice = pair[index % 2]
            utterance = queues[voice][used[voice] % len(queues[voice])]
            used[voice] += 1
            sequence.append(Turn(utterance, start, gains[voice]))
            # Rounded to 10 ms, and later than the previous turn, which is of the other voice.
            start = round(max(start + utterance.clip.seconds - random.uniform(*overlap), start + 0.1), 2)
        conversations.append(Conversation(name, _separate(sequence)))
    return conversations


def _separate(turns: list[Turn]) -> tuple[Turn, ...]:
    """Delay turns so that no voice overlaps itself."""
    free: dict[str, float] = defaultdict(float)
    delay, delayed = 0.0, []
    for turn in turns:
        voice = turn.utterance.clip.voice
        delay = max(delay, free[voice] - turn.start)
        start = round(turn.start + delay, 2)
        delayed.append(Turn(turn.utterance, start, turn.gain))
        free[voice] = start + turn.utterance.clip.seconds
    return tuple(delayed)
