"""Labelled recordings with the places of their words: what every task of real speech is cut from."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..constants import SAMPLE_RATE
from ..data.audio import read
from ..errors import DataError
from .corpus import QUEEN, Clip
from .voices import ROLES, TEST, UNHEARD, split_of
from .words import normalise

Item = TypeVar("Item")


@dataclass(frozen=True)
class Word:
    """A word and when it is said, in seconds from the start of the clip."""

    text: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.end - self.start


@dataclass(frozen=True)
class Utterance:
    """A recording.

    Attributes:
        clip: where it is from, who speaks.
        path: its FLAC.
        words: in order; none where text and recording could not be aligned.
    """

    clip: Clip
    path: Path
    words: tuple[Word, ...] = ()

    @property
    def split(self) -> str:
        """Where its voice belongs."""
        return split_of(self.clip.voice)

    @property
    def text(self) -> str:
        """Its words in capital letters."""
        return " ".join(word.text for word in self.words)

    def audio(self, start: float = 0.0, end: float | None = None) -> np.ndarray:
        """Samples (T,) from one second to another."""
        first = round(start * SAMPLE_RATE)
        last = self.clip.samples if end is None else min(round(end * SAMPLE_RATE), self.clip.samples)
        return read(self.path, first, max(last - first, 1))

    def pauses(self, least: float, margin: float) -> Iterator[tuple[float, float]]:
        """Stretches without speech of at least so many seconds, a margin to the words left out."""
        if not self.words:
            return
        edges = [0.0, *(second for word in self.words for second in (word.start, word.end))]
        edges.append(self.clip.seconds)
        for number in range(0, len(edges), 2):
            start = edges[number] + (margin if number else 0.0)
            end = edges[number + 1] - (margin if number + 2 < len(edges) else 0.0)
            if end - start >= least:
                yield start, end


@dataclass(frozen=True)
class Material:
    """All labelled recordings of a build.

    Attributes:
        utterances: in the order of packages and names.
        lexicon: word -> phones of CMU's dictionary without stress, in the pronunciation most often said.
    """

    utterances: tuple[Utterance, ...]
    lexicon: Mapping[str, str] = field(default_factory=dict)

    def of_the_game(self, split: str | None = None, voices: Iterable[str] | None = None) -> list[Utterance]:
        """Recordings of one package, so that the channel gives nothing away.

        Args:
            split: only voices that belong there.
            voices: only these voices.
        """
        chosen = (
            set(voices) if voices is not None else set(ROLES[split] if split else sum(ROLES.values(), ()))
        )
        return [u for u in self.utterances if u.clip.package == QUEEN and u.clip.voice in chosen]

    def unheard_in_tests(self, split: str) -> list[Utterance]:
        """Recordings of the game for a split; for tests only voices that ``hubert_nano`` never heard."""
        return self.of_the_game(voices=UNHEARD) if split == TEST else self.of_the_game(split)


def load(clips: list[Clip], corpus: Path, tables: Path) -> Material:
    """Join clips with the places of their words.

    Args:
        clips: labelled recordings.
        corpus: folder with their files.
        tables: folder with ``alignments.tsv.gz`` and ``lexicon.tsv.gz``.

    Raises:
        DataError: the table is of another corpus.
    """
    places = {row["name"]: row["words"] for row in _rows(tables / "alignments.tsv.gz")}
    lexicon = {row["word"]: row["phones"] for row in _rows(tables / "lexicon.tsv.gz")}
    return Material(
        tuple(Utterance(clip, corpus / clip.path, _place(clip, places.get(clip.name))) for clip in clips),
        lexicon,
    )


def _place(clip: Clip, places: str | None) -> tuple[Word, ...]:
    if places is None:
        return ()
    texts, spans = normalise(clip.text), [place.split(":") for place in places.split()]
    if len(texts) != len(spans):
        raise DataError(
            f"{clip.path}: has {len(texts)} words, alignments.tsv.gz places {len(spans)}; make the table "
            "anew with python -m s3prl_dphubert.mini.align"
        )
    return tuple(
        Word(text, int(start) / 100, (int(start) + int(length)) / 100)
        for text, (start, length) in zip(texts, spans, strict=True)
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf8") as file:
        names = next(file).rstrip("\n").split("\t")
        for line in file:
            yield dict(zip(names, line.rstrip("\n").split("\t"), strict=True))


def shuffled(items: Iterable[Item], name: Callable[[Item], str], purpose: str) -> list[Item]:
    """Put items into an order that depends on their names and the purpose alone."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{purpose}/{name(item)}".encode()).digest())


def generator(*purpose: str | int) -> np.random.Generator:
    """Random numbers that depend on the purpose alone."""
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
