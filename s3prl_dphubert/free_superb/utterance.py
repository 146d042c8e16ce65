"""Labelled recordings with the times of their words, from which all tasks on real speech are cut."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..constants import SAMPLE_RATE
from ..data.audio import read
from ..errors import DataError
from ..utils.readers import read_table, reading
from .clips import Clip, normalise
from .sources.recordings import QUEEN
from .voices import ROLES, split_of

Item = TypeVar("Item")


@dataclass(frozen=True)
class AlignedUnit:
    """A word or phone with its start and end in seconds of the clip."""

    text: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Utterance:
    """A labelled recording with the times of its words.

    Attributes:
        clip: the recording.
        path: its FLAC file.
        words: its words in order; none if text and recording could not be aligned.
        phones: phones of the CMU dictionary without stress, and ``SIL``, in order; none where there are no
            words.
    """

    clip: Clip
    path: Path
    words: tuple[AlignedUnit, ...] = ()
    phones: tuple[AlignedUnit, ...] = ()

    @property
    def split(self) -> str:
        """Split of its voice."""
        return split_of(self.clip.voice)

    @property
    def text(self) -> str:
        """Its words, in capital letters."""
        return " ".join(word.text for word in self.words)

    def audio(self, start: float = 0.0, end: float | None = None) -> np.ndarray:
        """Read the samples (T,) between two times in seconds."""
        first = round(start * SAMPLE_RATE)
        last = self.clip.samples if end is None else min(round(end * SAMPLE_RATE), self.clip.samples)
        return read(self.path, first, max(last - first, 1))

    def pauses(self, shortest: float, margin: float) -> Iterator[tuple[float, float]]:
        """Yield start and end of the stretches without speech.

        Args:
            shortest: least length of a pause in seconds.
            margin: seconds next to a word that do not belong to a pause.
        """
        if not self.words:
            return
        edges = [0.0, *(second for word in self.words for second in (word.start, word.end))]
        edges.append(self.clip.seconds)
        for number in range(0, len(edges), 2):
            start = edges[number] + (margin if number else 0.0)
            end = edges[number + 1] - (margin if number + 2 < len(edges) else 0.0)
            if end - start >= shortest:
                yield start, end


@dataclass(frozen=True)
class Material:
    """All labelled recordings of a build.

    Attributes:
        utterances: the recordings, in the order of packages and names.
        lexicon: word -> phones of the CMU dictionary without stress, in the most frequent pronunciation.
    """

    utterances: tuple[Utterance, ...]
    lexicon: Mapping[str, str] = field(default_factory=dict)

    def of_the_game(self, split: str | None = None, voices: Iterable[str] | None = None) -> list[Utterance]:
        """Return recordings of the game, a single package, so that the channel gives nothing away.

        Args:
            split: restrict them to the voices of a split.
            voices: restrict them to these voices.
        """
        if voices is None:
            voices = ROLES[split] if split else sum(ROLES.values(), ())
        speakers = set(voices)
        return [u for u in self.utterances if u.clip.package == QUEEN and u.clip.voice in speakers]

    def of_all_packages(self, split: str) -> list[Utterance]:
        """Return all recordings by the voices of a split."""
        return [u for u in self.utterances if u.clip.voice in ROLES[split]]


def load(clips: list[Clip], corpus: Path, tables: Path) -> Material:
    """Join clips with the times of their words.

    Args:
        clips: labelled recordings.
        corpus: folder with their files.
        tables: folder with ``alignments.tsv.gz``, ``phones.tsv.gz`` and ``lexicon.tsv.gz``.

    Raises:
        DataError: the table of alignments belongs to another corpus.
    """
    alignments = {
        row["name"]: row["words"] for row in read_table(tables / "alignments.tsv.gz", ("name", "words"))
    }
    phones = {row["name"]: row["phones"] for row in read_table(tables / "phones.tsv.gz", ("name", "phones"))}
    lexicon = {
        row["word"]: row["phones"] for row in read_table(tables / "lexicon.tsv.gz", ("word", "phones"))
    }
    with reading(tables, DataError, "tables of times"):
        utterances = [
            Utterance(
                clip,
                corpus / clip.path,
                _words(clip, alignments.get(clip.name)),
                _phones(phones.get(clip.name, "")),
            )
            for clip in clips
        ]
    return Material(tuple(utterances), lexicon)


def _words(clip: Clip, alignment: str | None) -> tuple[AlignedUnit, ...]:
    """Return the words of a clip with their times, given as ``start:length`` in 10 ms for each."""
    if alignment is None:
        return ()
    texts, spans = normalise(clip.text), [span.split(":") for span in alignment.split()]
    if len(texts) != len(spans):
        raise DataError(
            f"{clip.path}: has {len(texts)} words, alignments.tsv.gz has {len(spans)}; make the table again "
            "with python -m s3prl_dphubert.free_superb.align"
        )
    return tuple(
        AlignedUnit(text, int(start) / 100, (int(start) + int(length)) / 100)
        for text, (start, length) in zip(texts, spans, strict=True)
    )


def _phones(alignment: str) -> tuple[AlignedUnit, ...]:
    """Return the phones of a clip with their times, given as ``PHONE:start:length`` in 10 ms for each."""
    parts = (part.split(":") for part in alignment.split())
    return tuple(
        AlignedUnit(text, int(start) / 100, (int(start) + int(length)) / 100) for text, start, length in parts
    )


def shuffled(items: Iterable[Item], name: Callable[[Item], str], purpose: str) -> list[Item]:
    """Sort items into an order that depends only on their names and the purpose."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{purpose}/{name(item)}".encode()).digest())


def generator(*purpose: str | int) -> np.random.Generator:
    """Return a random generator whose seed depends only on the purpose."""
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
