"""Emotion recognition, as a smoke test: the prosody is synthesised, so its score means nothing.

The layout is that of IEMOCAP: five sessions with two speakers each.
"""

from __future__ import annotations

from functools import partial

from ..layout import CorpusPlan, Piece
from ..sources.espeak import Voice, speak
from ..utterance import generator
from ..voices import TEST, TRAIN, synthetic_voices

ROOT = "IEMOCAP_full_release"
SESSIONS = 5
TIMES = 3  # renditions of each sentence and emotion by a speaker
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
"""Largest deviation of a sentence from the values of its emotion, so that emotions overlap."""


def plan() -> CorpusPlan:
    """Plan the same sentences by ten speakers in all emotions."""
    pieces: list[Piece] = []
    texts: dict[str, str] = {}
    cast = [*synthetic_voices(TRAIN)[:6], *synthetic_voices(TEST)[:4]]
    for number, speaker in enumerate(cast):
        session, letter = number % SESSIONS + 1, "FM"[number // SESSIONS]
        dialog = f"Ses0{session}{letter}_synth01"
        rows = []
        for index in range(TIMES * len(SENTENCES) * len(EMOTIONS)):
            emotion = sorted(EMOTIONS)[index % len(EMOTIONS)]
            text = SENTENCES[index // len(EMOTIONS) % len(SENTENCES)]
            name = f"{dialog}_{letter}{index:03}"
            path = f"{ROOT}/Session{session}/sentences/wav/{dialog}/{name}.wav"
            render = partial(speak, text, _prosody(speaker, emotion, index))
            voice = (speaker.partition("+")[2],)
            pieces.append(Piece(path, "ER", f"session{session}", voice, render, label=emotion))
            rows.append(f"[{index}.0000 - {index}.9000]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n")
        texts[f"{ROOT}/Session{session}/dialog/EmoEvaluation/{dialog}.txt"] = "".join(rows)
    return CorpusPlan(tuple(pieces), texts)


def _prosody(speaker: str, emotion: str, index: int) -> Voice:
    """Return the voice of a speaker with an emotion, varied at random."""
    random = generator("er", speaker, emotion, index)
    values = {
        name: max(1, int(random.integers(value - JITTER[name], value + JITTER[name] + 1)))
        for name, value in EMOTIONS[emotion].items()
    }
    return Voice(speaker, **values)
