"""Recognition of words and phones: LibriSpeech's tree, with a list of pronunciations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ..layout import Piece, Plan, piece
from ..utterance import Material, Utterance, shuffled
from ..voices import DEV, OPERATOR, ROLES, TRAIN, UNHEARD

ROOT, LEXICON = "LibriSpeech", "LibriSpeech/lexicon.txt"
SECONDS = (0.6, 16.0)
"""Shortest and longest utterance."""

MINUTES = 25.0
"""Of a voice at most in training; only the hero speaks more."""

CHAPTER = 1
OTHER = "test-other"


def plan(material: Material) -> Plan:
    """Training, validation, test, and out of domain."""
    phones = material.lexicon
    sets = {
        "train-clean-100": (TRAIN, _capped(_usable(material.of_the_game(TRAIN), phones))),
        "dev-clean": (DEV, _usable(material.of_the_game(DEV), phones)),
        "test-clean": ("test", _usable(material.of_the_game(voices=UNHEARD), phones)),
        OTHER: (OTHER, _usable([u for u in material.utterances if u.clip.voice == OPERATOR], phones)),
    }
    pieces: list[Piece] = []
    texts: dict[str, str] = {}
    words: set[str] = set()
    for name, (split, chosen) in sets.items():
        chapters: dict[str, list[str]] = defaultdict(list)
        for utterance in chosen:
            speaker = number(utterance.clip.voice)
            rows = chapters[f"{ROOT}/{name}/{speaker}/{CHAPTER}/{speaker}-{CHAPTER}"]
            stem = f"{speaker}-{CHAPTER}-{len(rows):04}"
            place = f"{ROOT}/{name}/{speaker}/{CHAPTER}/{stem}.flac"
            rows.append(f"{stem} {utterance.text}\n")
            words.update(utterance.text.split())
            pieces.append(piece(place, "ASR", split, utterance))
        texts |= {f"{chapter}.trans.txt": "".join(rows) for chapter, rows in chapters.items()}
    texts[LEXICON] = "".join(f"{word} {phones[word]}\n" for word in sorted(words))
    return Plan(tuple(pieces), texts)


def number(voice: str) -> int:
    """LibriSpeech's kind of name for a voice."""
    return 100 + sorted([OPERATOR, *sum(ROLES.values(), ())]).index(voice)


def _usable(utterances: list[Utterance], phones: Mapping[str, str]) -> list[Utterance]:
    """Those with words, all of known pronunciation, neither very short nor very long."""
    low, high = SECONDS
    return [
        u
        for u in utterances
        if u.words and low <= u.clip.seconds <= high and all(word.text in phones for word in u.words)
    ]


def _capped(utterances: list[Utterance]) -> list[Utterance]:
    """No more than so many minutes of each voice, in the order that they came."""
    chosen: set[str] = set()
    minutes: dict[str, float] = defaultdict(float)
    for utterance in shuffled(utterances, lambda u: u.clip.path, "asr"):
        if minutes[utterance.clip.voice] < MINUTES:
            minutes[utterance.clip.voice] += utterance.clip.seconds / 60
            chosen.add(utterance.clip.path)
    return [u for u in utterances if u.clip.path in chosen]
