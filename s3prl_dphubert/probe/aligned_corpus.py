"""Recordings with the times of their words and phones, from a table that any forced aligner can fill.

The table is tab-separated, plain or gzipped, with a header and one line for each recording:

========== ===========================================================================================
column     content
========== ===========================================================================================
path       audio file, relative to the folder of the table
speaker    name of the voice
split      ``train`` for voices that models were trained on, ``dev`` or ``test`` for voices they never heard
words      ``WORD:start:duration`` in units of 10 ms, separated by spaces; may be empty
phones     ``PHONE:start:duration`` likewise, with a name of its own for silence; may be empty
========== ===========================================================================================
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError, shown
from ..utils.files import replacing
from ..utils.readers import read_table

COLUMNS = ("path", "speaker", "split", "words", "phones")
FILES = ("aligned.tsv.gz", "aligned.tsv")
"""Names of the table in a folder that is given instead of it."""
TRAIN, SPLITS = "train", ("train", "dev", "test")
UNIT = 0.01  # seconds


@dataclass(frozen=True)
class Segment:
    """A word or phone with its start and end in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class AlignedUtterance:
    """A recording with the times of its words and phones.

    Attributes:
        path: audio file.
        speaker: name of the voice.
        split: ``train``, ``dev`` or ``test``.
        words: in order; none if the recording has no times of words.
        phones: likewise.
    """

    path: Path
    speaker: str
    split: str
    words: tuple[Segment, ...] = ()
    phones: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class AlignedCorpus:
    """An aligned corpus.

    Args:
        name: shown in reports.
        utterances: the recordings.

    Raises:
        DataError: there are none, a path occurs twice, a split is unknown, or a voice belongs to several.
    """

    name: str
    utterances: tuple[AlignedUtterance, ...]

    def __post_init__(self) -> None:
        if not self.utterances:
            raise DataError(f"{self.name}: holds no recordings")
        splits: dict[str, str] = {}
        paths = set()
        for each in self.utterances:
            if each.split not in SPLITS:
                raise DataError(f"{each.path}: split is {shown(each.split)}, allowed: {', '.join(SPLITS)}")
            if splits.setdefault(each.speaker, each.split) != each.split:
                raise DataError(
                    f"{self.name}: speaker {shown(each.speaker)} is in {splits[each.speaker]} and "
                    f"{each.split}, allowed: one split for each"
                )
            if each.path in paths:
                raise DataError(f"{self.name}: path {each.path} is there twice")
            paths.add(each.path)

    @property
    def speakers(self) -> tuple[str, ...]:
        """All voices, sorted."""
        return tuple(sorted({each.speaker for each in self.utterances}))

    @property
    def unheard(self) -> tuple[str, ...]:
        """Voices outside ``train``, sorted; the probes are tested on them."""
        return tuple(sorted({each.speaker for each in self.utterances if each.split != TRAIN}))

    @cached_property
    def sha256(self) -> str:
        """Digest of names of files, voices, splits and times: results compare only if it is the same."""
        digest = hashlib.sha256()
        for each in self.utterances:
            times = " / ".join(" ".join(map(_written, kind)) for kind in (each.words, each.phones))
            digest.update(f"{each.path.name}\t{each.speaker}\t{each.split}\t{times}\n".encode())
        return digest.hexdigest()

    @classmethod
    def read(cls, path: Path) -> AlignedCorpus:
        """Read a table, or the one in a folder.

        Raises:
            DataError: there is no table, or a line of it is wrong; the message names the line and the field.
        """
        table = next((path / name for name in FILES if (path / name).is_file()), path)
        if not table.is_file():
            raise DataError(f"{path}: no such table, and no folder with {' or '.join(FILES)}")
        return cls(path.name, tuple(_rows(table)))

    def write(self, path: Path) -> None:
        """Write the table, gzipped if the name ends so; paths become relative to its folder.

        Raises:
            DataError: a recording does not lie below that folder.
        """
        lines = ["\t".join(COLUMNS)]
        for each in self.utterances:
            try:
                relative = each.path.resolve().relative_to(path.parent.resolve()).as_posix()
            except ValueError as error:
                raise DataError(f"{each.path}: does not lie below {path.parent}") from error
            words, phones = (" ".join(map(_written, kind)) for kind in (each.words, each.phones))
            lines.append("\t".join((relative, each.speaker, each.split, words, phones)))
        content = ("\n".join(lines) + "\n").encode()
        with replacing(path) as partial:
            partial.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _written(segment: Segment) -> str:
    start = round(segment.start / UNIT)
    return f"{segment.label}:{start}:{round(segment.end / UNIT) - start}"


def _rows(table: Path) -> Iterator[AlignedUtterance]:
    for number, row in enumerate(read_table(table, COLUMNS), start=2):
        path, speaker, split, words, phones = (row[name] for name in COLUMNS)
        if not path or not speaker:
            raise DataError(f"{table}, line {number}: {'speaker' if path else 'path'} is empty")
        yield AlignedUtterance(
            table.parent / path,
            speaker,
            split,
            tuple(parse_segments(words, f"{table}, line {number}: words")),
            tuple(parse_segments(phones, f"{table}, line {number}: phones")),
        )


class Timed(Protocol):
    """Anything with a start and an end in seconds."""

    @property
    def start(self) -> float:
        """First moment."""

    @property
    def end(self) -> float:
        """Moment after the last."""


def segments_at(segments: Sequence[Timed], moments: np.ndarray) -> np.ndarray:
    """Return the index of the segment at each moment (M,) in seconds, -1 where there is none.

    Where segments overlap, it is the last of them.
    """
    indices = np.full(len(moments), -1)
    for index, segment in enumerate(segments):
        indices[(moments >= segment.start) & (moments < segment.end)] = index
    return indices


def parse_segments(text: str, field: str = "segments") -> Iterable[Segment]:
    """Yield the segments of ``LABEL:start:duration …`` in units of 10 ms.

    Args:
        text: of a field of the table.
        field: its name in error messages.

    Raises:
        DataError: a segment has another form, an empty label, or times below 0.
    """
    for part in text.split():
        label, *numbers = part.rsplit(":", 2)
        if not label or len(numbers) != 2 or not all(n.isascii() and n.isdigit() for n in numbers):
            raise DataError(f"{field} has {shown(part)}, allowed: LABEL:start:duration in units of 10 ms")
        start, duration = map(int, numbers)
        yield Segment(label, start * UNIT, (start + duration) * UNIT)
