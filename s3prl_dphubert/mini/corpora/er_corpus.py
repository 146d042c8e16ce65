"""Emotion recognition: a smoke test. The prosody is synthesised, nobody feels anything, and no score counts.

The layout is IEMOCAP's: five sessions of two speakers, each heard in one session only.
"""

from __future__ import annotations

from functools import partial

from ..layout import Piece, Plan
from ..sources.espeak import Voice, speak
from ..utterance import generator
from ..voices import TEST, TRAIN
from .synthetic_voices import speakers

ROOT = "IEMOCAP_full_release"
SESSIONS, TIMES = 5, 3
SENTENCES = (
    "you said that you would be here by now",
    "I have seen the letter on the table",
    "there is somebody waiting at the door",
    "we are going to the station this evening",
    "nobody told me about the other room",
)
EMOTIONS = {
    "neu": {"rate": 165, "pitch": 50, "range": 40, "volume": 90},
    "hap": {"rate": 190, "pitch": 68, "range": 85, "volume": 110},
    "ang": {"rate": 205, "pitch": 55, "range": 70, "volume": 170},
    "sad": {"rate": 125, "pitch": 36, "range": 20, "volume": 60},
}
JITTER = {"rate": 18, "pitch": 9, "range": 12, "volume": 15}
"""How far a sentence may be from its emotion; they overlap."""


def plan() -> Plan:
    """Sentences by ten speakers, each in all emotions."""
    pieces: list[Piece] = []
    texts: dict[str, str] = {}
    cast = [*speakers(TRAIN)[:6], *speakers(TEST)[:4]]
    for number, speaker in enumerate(cast):
        session, letter = number % SESSIONS + 1, "FM"[number // SESSIONS]
        dialog = f"Ses0{session}{letter}_synth01"
        rows = []
        for index in range(TIMES * len(SENTENCES) * len(EMOTIONS)):
            emotion = sorted(EMOTIONS)[index % len(EMOTIONS)]
            text = SENTENCES[index // len(EMOTIONS) % len(SENTENCES)]
            name = f"{dialog}_{letter}{index:03}"
            path = f"{ROOT}/Session{session}/sentences/wav/{dialog}/{name}.wav"
            render = partial(speak, text, _moved(speaker, emotion, index))
            voice = (speaker.partition("+")[2],)
            pieces.append(Piece(path, "ER", f"session{session}", voice, render, label=emotion))
            rows.append(f"[{index}.0000 - {index}.9000]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n")
        texts[f"{ROOT}/Session{session}/dialog/EmoEvaluation/{dialog}.txt"] = "".join(rows)
    return Plan(tuple(pieces), texts)


def _moved(speaker: str, emotion: str, index: int) -> Voice:
    random = generator("er", speaker, emotion, index)
    values = {
        name: max(1, int(random.integers(value - JITTER[name], value + JITTER[name] + 1)))
        for name, value in EMOTIONS[emotion].items()
    }
    return Voice(speaker).changed(**values)
