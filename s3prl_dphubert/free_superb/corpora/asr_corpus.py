"""Speech and phoneme recognition: the layout of LibriSpeech, with a lexicon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ..layout import CorpusPlan, Piece
from ..utterance import Material, Utterance, shuffled
from ..voices import DEV, OPERATOR, ROLES, TRAIN, UNHEARD

ROOT, LEXICON = "LibriSpeech", "LibriSpeech/lexicon.txt"
SECONDS = (0.6, 16.0)
"""Lengths of the shortest and the longest utterance."""

MINUTES = 25.0
"""Most training speech per voice; only the hero has more."""

CHAPTER = 1
OTHER = "test-other"


def plan(material: Material) -> CorpusPlan:
    """Plan the training, validation, test and out-of-domain sets."""
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
    for name, (split, utterances) in sets.items():
        chapters: dict[str, list[str]] = defaultdict(list)
        for utterance in utterances:
            speaker = number(utterance.clip.voice)
            rows = chapters[f"{ROOT}/{name}/{speaker}/{CHAPTER}/{speaker}-{CHAPTER}"]
            stem = f"{speaker}-{CHAPTER}-{len(rows):04}"
            path = f"{ROOT}/{name}/{speaker}/{CHAPTER}/{stem}.flac"
            rows.append(f"{stem} {utterance.text}\n")
            words.update(utterance.text.split())
            pieces.append(Piece.of(utterance, path, "ASR", split))
        texts |= {f"{chapter}.trans.txt": "".join(rows) for chapter, rows in chapters.items()}
    texts[LEXICON] = "".join(f"{word} {phones[word]}\n" for word in sorted(words))
    return CorpusPlan(tuple(pieces), texts)


def number(voice: str) -> int:
    """Return the number of a voice, which is how LibriSpeech names speakers."""
    return 100 + sorted([OPERATOR, *sum(ROLES.values(), ())]).index(voice)


def _usable(utterances: list[Utterance], phones: Mapping[str, str]) -> list[Utterance]:
    """Return the utterances of suitable length whose words are known and in the lexicon."""
    shortest, longest = SECONDS
    return [
        u
        for u in utterances
        if u.words and shortest <= u.clip.seconds <= longest and all(word.text in phones for word in u.words)
    ]


def _capped(utterances: list[Utterance]) -> list[Utterance]:
    """Return a random selection of at most :data:`MINUTES` per voice, in the original order."""
    selected: set[str] = set()
    minutes: dict[str, float] = defaultdict(float)
    for utterance in shuffled(utterances, lambda u: u.clip.path, "asr"):
        if minutes[utterance.clip.voice] < MINUTES:
            minutes[utterance.clip.voice] += utterance.clip.seconds / 60
            selected.add(utterance.clip.path)
    return [u for u in utterances if u.clip.path in selected]
