"""Keyword spotting: single words cut out of sentences, in the layout of Speech Commands 0.01."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial

import numpy as np

from ...constants import SAMPLE_RATE
from ...errors import DataError
from ..layout import CorpusPlan, Piece
from ..utterance import AlignedUnit, Material, Utterance, shuffled
from ..voices import DEV, ROLES, SPLITS, TEST, TRAIN

ROOT, TEST_ROOT = "speech_commands_v0.01", "speech_commands_test_set_v0.01"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE, NOISE = "_unknown_", "_silence_", "_background_noise_"
OTHERS = {TRAIN: 1200, DEV: 80, TEST: 176}
"""Tokens of other words per split; in the test set twice as many as there are of all keywords."""

SILENCES = {TRAIN: 80, TEST: 80}
"""Most files of silence per split."""

MARGIN, FADE = 0.03, 0.01  # seconds kept at either side of a word, and of its fades
SHORTEST, LONGEST = 0.12, 0.9  # seconds of a word
PAUSE, BESIDE = 0.12, 0.03  # seconds of the shortest pause, and next to a word that are no pause
FRAME, LOUD = 320, 0.02  # samples of a frame, and the root mean square that makes it loud
NOISE_SECONDS = 2  # length of a file of pauses, from which training cuts silence
_LIMIT = 2**27 - 1
_SHARES = {TRAIN: (20, 101), DEV: (0, 10)}


def plan(material: Material) -> CorpusPlan:
    """Plan the keywords, other words and silence of the three splits."""
    pieces: list[Piece] = []
    for split in SPLITS:
        utterances = material.of_the_game(split)
        for label, tokens in _select_tokens(utterances, split).items():
            pieces += _word_pieces(label, tokens, split)
        if split != DEV:  # s3prl validates on silence from the training files
            pieces += _silence_pieces(utterances, split)
    return CorpusPlan(tuple(pieces), {})


def _select_tokens(utterances: list[Utterance], split: str) -> dict[str, list[tuple[Utterance, AlignedUnit]]]:
    """Return keyword or ``_unknown_`` -> selected words, each with its utterance."""
    words = [(u, word) for u in utterances for word in u.words if SHORTEST <= word.seconds <= LONGEST]
    words = shuffled(words, lambda pair: f"{pair[0].clip.path}/{pair[1].start:.2f}", "ks")
    tokens: dict[str, list[tuple[Utterance, AlignedUnit]]] = {}
    for label in (*KEYWORDS, UNKNOWN):
        labelled = [(u, word) for u, word in words if _label(word) == label]
        tokens[label] = labelled[: OTHERS[split]] if label == UNKNOWN else labelled
    return tokens


def _label(word: AlignedUnit) -> str:
    """Return the class of a word; empty if it is too short or has an apostrophe."""
    text = word.text.lower()
    if text in KEYWORDS:
        return text
    return UNKNOWN if text.isalpha() and len(text) > 2 else ""


def _word_pieces(label: str, tokens: list[tuple[Utterance, AlignedUnit]], split: str) -> Iterator[Piece]:
    counts: Counter[tuple[str, str]] = Counter()
    for utterance, word in tokens:
        text, speaker = word.text.lower(), speaker_name(utterance.clip.voice)
        folder = f"{TEST_ROOT}/{label}" if split == TEST else f"{ROOT}/{text}"
        stem = f"{text}-{speaker}" if split == TEST and label == UNKNOWN else speaker
        path = f"{folder}/{stem}_nohash_{counts[stem, text]}.wav"
        counts[stem, text] += 1
        yield Piece.of(utterance, path, "KS", split, partial(_one_second, utterance, word), label)


def _one_second(utterance: Utterance, word: AlignedUnit) -> np.ndarray:
    """Return a word in the middle of one second of digital silence (T,)."""
    audio = utterance.audio(max(word.start - MARGIN, 0.0), word.end + MARGIN)[:SAMPLE_RATE]
    ramp = np.arange(len(audio))
    audio = audio * np.minimum(1, np.minimum(ramp, ramp[::-1]) / (FADE * SAMPLE_RATE))
    before = (SAMPLE_RATE - len(audio)) // 2
    return np.pad(audio, (before, SAMPLE_RATE - len(audio) - before)).astype(np.float32)


def _silence_pieces(utterances: list[Utterance], split: str) -> list[Piece]:
    """Return joined pauses: files to cut silence from in training, clips of one second in the test set."""
    by_voice: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        by_voice[utterance.clip.voice].append(utterance)
    seconds = 1 if split == TEST else NOISE_SECONDS
    pieces: list[Piece] = []
    for voice, spoken in sorted(by_voice.items()):
        stretches, length = [], 0.0
        pauses = (
            (u, pause) for u in spoken for pause in u.pauses(PAUSE, BESIDE) if _is_quiet(u.audio(*pause))
        )
        for utterance, (start, end) in pauses:
            stretches.append((utterance, start, end))
            length += end - start - FADE
            if length >= seconds:
                folder = f"{TEST_ROOT}/{SILENCE}" if split == TEST else f"{ROOT}/{NOISE}"
                path = f"{folder}/{speaker_name(voice)}_{len(pieces):03}.wav"
                render = partial(_join, tuple(stretches), seconds)
                clips = tuple(dict.fromkeys(u.clip.path for u, _, _ in stretches))
                pieces.append(Piece(path, "KS", split, (voice,), render, clips, SILENCE))
                stretches, length = [], 0.0
    return shuffled(pieces, lambda piece: piece.path, "ks")[: SILENCES[split]]


def _is_quiet(audio: np.ndarray) -> bool:
    """Return whether no frame is loud: a breath or laugh that is not in the text may lie between words."""
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)
    return float(np.sqrt(np.mean(frames**2, axis=1)).max()) < LOUD


def _join(stretches: tuple[tuple[Utterance, float, float], ...], seconds: int) -> np.ndarray:
    """Return the stretches in a row, with cross-fades (T,)."""
    fade = round(FADE * SAMPLE_RATE)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    joined = np.zeros(0, np.float32)
    for utterance, start, end in stretches:
        audio = utterance.audio(start, end).copy()
        if len(joined):
            audio[:fade] = audio[:fade] * ramp + joined[-fade:] * ramp[::-1]
            joined = joined[:-fade]
        joined = np.concatenate([joined, audio])
    return joined[: seconds * SAMPLE_RATE]


def speaker_name(voice: str) -> str:
    """Return a name for a voice whose SHA-1 puts it into the right split, as Speech Commands defines it."""
    split = next(split for split, voices in ROLES.items() if voice in voices)
    low, high = _SHARES.get(split, (0, 101))
    first = 1000 * sorted(sum(ROLES.values(), ())).index(voice)
    for number in range(first, first + 1000):
        share = int(hashlib.sha1(f"{number:08x}".encode()).hexdigest(), 16) % (_LIMIT + 1) * 100 / _LIMIT
        if low <= share < high:
            return f"{number:08x}"
    raise DataError(f"{voice}: no name of 1,000 falls into the split {split}")
