"""Keyword spotting: single words in the layout of Speech Commands 0.01, cut out of sentences."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial

import numpy as np

from ...constants import SAMPLE_RATE
from ...errors import DataError
from ..layout import Piece, Plan, piece
from ..utterance import Material, Utterance, Word, shuffled
from ..voices import DEV, ROLES, SPLITS, TEST, TRAIN

ROOT, TEST_ROOT = "speech_commands_v0.01", "speech_commands_test_set_v0.01"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE, NOISE = "_unknown_", "_silence_", "_background_noise_"
TOKENS = {TRAIN: 60, DEV: 30, TEST: 60}
"""Of a keyword at most, per split."""

OTHERS = {TRAIN: 400, DEV: 60, TEST: 60}
"""Tokens of other words, per split."""

SILENCES = {TRAIN: 40, TEST: 40}
"""Files of silence at most, per split."""

MARGIN, FADE = 0.03, 0.01  # seconds kept beside a word, and over which it comes and goes
SHORTEST, LONGEST = 0.12, 0.9  # seconds of a word
PAUSE, BESIDE = 0.12, 0.03  # seconds; shorter ones are no silence, nor is what lies so close to a word
FRAME, LOUD = 320, 0.02  # samples, and their root mean square from which on they are no silence
NOISE_SECONDS = 2  # of a file of pauses to cut silence from in training
_LIMIT = 2**27 - 1
_SHARES = {TRAIN: (20, 101), DEV: (0, 10)}


def plan(material: Material) -> Plan:
    """Keywords, other words and silence of the three splits."""
    pieces: list[Piece] = []
    for split in SPLITS:
        utterances = material.of_the_game(split)
        for label, words in _chosen(utterances, split).items():
            pieces += _words(label, words, split)
        if split != DEV:  # s3prl takes the silence of validation from the same files as that of training
            pieces += _silences(utterances, split)
    return Plan(tuple(pieces), {})


def _chosen(utterances: list[Utterance], split: str) -> dict[str, list[tuple[Utterance, Word]]]:
    """Keyword or ``_unknown_`` -> words in their sentences."""
    found = [(u, word) for u in utterances for word in u.words if SHORTEST <= word.seconds <= LONGEST]
    found = shuffled(found, lambda pair: f"{pair[0].clip.path}/{pair[1].start:.2f}", "ks")
    chosen: dict[str, list[tuple[Utterance, Word]]] = {}
    for label in (*KEYWORDS, UNKNOWN):
        fitting = [(u, word) for u, word in found if _label(word) == label]
        chosen[label] = fitting[: (OTHERS if label == UNKNOWN else TOKENS)[split]]
    return chosen


def _label(word: Word) -> str:
    text = word.text.lower()
    return text if text in KEYWORDS else UNKNOWN if text.isalpha() and len(text) > 2 else ""


def _words(label: str, words: list[tuple[Utterance, Word]], split: str) -> Iterator[Piece]:
    said: Counter[tuple[str, str]] = Counter()
    for utterance, word in words:
        text, speaker = word.text.lower(), name(utterance.clip.voice)
        folder = f"{TEST_ROOT}/{label}" if split == TEST else f"{ROOT}/{text}"
        stem = f"{text}-{speaker}" if split == TEST and label == UNKNOWN else speaker
        place = f"{folder}/{stem}_nohash_{said[stem, text]}.wav"
        said[stem, text] += 1
        yield piece(place, "KS", split, utterance, partial(_one_second, utterance, word), label)


def _one_second(utterance: Utterance, word: Word) -> np.ndarray:
    """A word in the middle of a second of nothing (T,)."""
    audio = utterance.audio(max(word.start - MARGIN, 0.0), word.end + MARGIN)[:SAMPLE_RATE]
    audio = audio * np.minimum(
        1, np.minimum(ramp := np.arange(len(audio)), ramp[::-1]) / (FADE * SAMPLE_RATE)
    )
    before = (SAMPLE_RATE - len(audio)) // 2
    return np.pad(audio, (before, SAMPLE_RATE - len(audio) - before)).astype(np.float32)


def _silences(utterances: list[Utterance], split: str) -> Iterator[Piece]:
    """Pauses in a row: long files to cut noise from in training, clips of one second in the test set."""
    by_voice: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        by_voice[utterance.clip.voice].append(utterance)
    seconds = 1 if split == TEST else NOISE_SECONDS
    made: list[Piece] = []
    for voice, said in sorted(by_voice.items()):
        stretches, length = [], 0.0
        pauses = ((u, pause) for u in said for pause in u.pauses(PAUSE, BESIDE) if _quiet(u.audio(*pause)))
        for utterance, (start, end) in pauses:
            stretches.append((utterance, start, end))
            length += end - start - FADE
            if length >= seconds:
                folder = f"{TEST_ROOT}/{SILENCE}" if split == TEST else f"{ROOT}/{NOISE}"
                place = f"{folder}/{voice}_{len(made):03}.wav"
                render = partial(_joined, tuple(stretches), seconds)
                clips = tuple(dict.fromkeys(u.clip.path for u, _, _ in stretches))
                made.append(Piece(place, "KS", split, (voice,), render, clips, SILENCE))
                stretches, length = [], 0.0
    yield from shuffled(made, lambda one: one.path, "ks")[: SILENCES[split]]


def _quiet(audio: np.ndarray) -> bool:
    """Whether no frame is loud; a breath or a laugh that no text tells of may lie between words."""
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)
    return float(np.sqrt(np.mean(frames**2, axis=1)).max()) < LOUD


def _joined(stretches: tuple[tuple[Utterance, float, float], ...], seconds: int) -> np.ndarray:
    """Stretches one after the other, faded into each other (T,)."""
    fade = round(FADE * SAMPLE_RATE)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    whole = np.zeros(0, np.float32)
    for utterance, start, end in stretches:
        audio = utterance.audio(start, end).copy()
        if len(whole):
            audio[:fade] = audio[:fade] * ramp + whole[-fade:] * ramp[::-1]
            whole = whole[:-fade]
        whole = np.concatenate([whole, audio])
    return whole[: seconds * SAMPLE_RATE]


def name(voice: str) -> str:
    """A speaker's name whose SHA-1 puts it into the split of the voice, as Speech Commands splits."""
    split = next(split for split, voices in ROLES.items() if voice in voices)
    low, high = _SHARES.get(split, (0, 101))
    first = 1000 * sorted(sum(ROLES.values(), ())).index(voice)
    for number in range(first, first + 1000):
        share = int(hashlib.sha1(f"{number:08x}".encode()).hexdigest(), 16) % (_LIMIT + 1) * 100 / _LIMIT
        if low <= share < high:
            return f"{number:08x}"
    raise DataError(f"{voice}: no name gives the split {split}")
