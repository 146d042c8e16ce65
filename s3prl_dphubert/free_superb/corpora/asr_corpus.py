"""Speech and phoneme recognition: the layout of LibriSpeech, with a lexicon."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ..layout import CorpusPlan, Piece
from ..utterance import Material, Utterance
from ..voices import DEV, ROLES, SPLITS, TEST, TRAIN

ROOT, LEXICON = "LibriSpeech", "LibriSpeech/lexicon.txt"
SECONDS = (0.6, 16.0)
"""Lengths of the shortest and the longest utterance."""

FOLDERS = {TRAIN: "train-clean-100", DEV: "dev-clean", TEST: "test-clean"}
CHAPTER = 1


def plan(material: Material) -> CorpusPlan:
    """Plan all aligned speech of the voices of each split.

    Five eighths of the training speech are by one voice, the hero's. Nothing is left out for balance: tests
    are of other voices anyway, and every sentence more has words and contexts that the others lack.
    """
    phones = material.lexicon
    pieces: list[Piece] = []
    texts: dict[str, str] = {}
    words: set[str] = set()
    for split in SPLITS:
        name, utterances = FOLDERS[split], _usable(material.of_all_packages(split), phones)
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
    return 100 + sorted(sum(ROLES.values(), ())).index(voice)


def _usable(utterances: list[Utterance], phones: Mapping[str, str]) -> list[Utterance]:
    """Return the utterances of suitable length whose words are known and in the lexicon."""
    shortest, longest = SECONDS
    return [
        u
        for u in utterances
        if u.words and shortest <= u.clip.seconds <= longest and all(word.text in phones for word in u.words)
    ]
