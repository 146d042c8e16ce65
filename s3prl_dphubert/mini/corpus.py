"""The corpus that all tasks are cut from: each recording as FLAC, 16 kHz, mono, with its voice and text.

::

    corpus/<package>/<clip>.flac   decoded recordings
    corpus/<package>.tsv           their names and samples, written when the package is whole
    corpus/clips.tsv               voice and text of those that are labelled
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import soundfile
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..errors import DataError
from ..utils.files import write_text
from .sources import amazon_queen, asterisk, deb
from .sources.recordings import SOURCES, Source, convert
from .voices import OPERATOR
from .workers import pool

QUEEN = "flight-of-the-amazon-queen"
LABELLED = (QUEEN, asterisk.RECORDINGS)
"""Packages whose clips have voices and texts."""

NEEDED = (QUEEN, asterisk.RECORDINGS, asterisk.TEXTS)
"""Packages that the tasks need; the others give speech without labels."""


@dataclass(frozen=True)
class Clip:
    """One recording.

    Attributes:
        package: the Debian package it is from.
        name: of its file, without suffix.
        voice: who speaks.
        text: what is said, as the package has it.
        samples: at 16 kHz.
    """

    package: str
    name: str
    voice: str
    text: str
    samples: int

    @property
    def path(self) -> str:
        """Its file below ``corpus``."""
        return f"{self.package}/{self.name}.flac"

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.samples / SAMPLE_RATE


def source(package: str) -> Source:
    """What there is to know of a package with recordings.

    Raises:
        DataError: it is none of them.
    """
    for one in SOURCES:
        if one.package == package:
            return one
    raise DataError(f"package is {package!r}, allowed: {', '.join(one.package for one in SOURCES)}")


def decode(package: str, path: Path, corpus: Path) -> dict[str, int]:
    """Decode what a package holds; clips that are there already are kept.

    Returns:
        Name -> samples of every clip that is speech, in the order of their names.
    """
    done = corpus / f"{package}.tsv"
    if not done.exists():
        with pool() as workers:
            found = [clip for clip in _encoded(source(package), path) if not _exists(corpus, package, clip)]
            job = partial(convert, decoder=source(package).decoder, out=corpus / package)
            for _ in tqdm(workers.map(job, found, chunksize=16), desc=package, total=len(found), unit="clip"):
                pass
        files = sorted((corpus / package).glob("*.flac"))
        rows = "".join(f"{file.stem}\t{soundfile.info(file).frames}\n" for file in files)
        write_text(done, f"name\tsamples\n{rows}")
    return {row["name"]: int(row["samples"]) for row in read_table(done)}


def label(debs: dict[str, Path], corpus: Path) -> list[Clip]:
    """Decode the packages with labels and write ``clips.tsv``; of clips that sound the same one is kept."""
    table = corpus / "clips.tsv"
    if not table.exists():
        clips = [*_of_the_game(debs, corpus), *_of_the_operator(debs, corpus)]
        rows = "".join(f"{c.package}\t{c.name}\t{c.voice}\t{c.text}\t{c.samples}\n" for c in clips)
        write_text(table, f"package\tname\tvoice\ttext\tsamples\n{rows}")
    return read_clips(table)


def read_clips(path: Path) -> list[Clip]:
    """The labelled clips that ``clips.tsv`` lists."""
    return [
        Clip(row["package"], row["name"], row["voice"], row["text"], int(row["samples"]))
        for row in read_table(path)
    ]


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a table with tabs between its columns and their names in the first line."""
    with path.open(encoding="utf8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _encoded(kind: Source, path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and encoded bytes of every recording of a package."""
    for place, data in deb.files(path, kind.pattern):
        if kind.decoder == "queen":
            yield from ((line.name, line.data) for line in amazon_queen.lines(data))
        else:
            stem = place.rpartition(".")[0]
            yield stem.removeprefix("/usr/share/").replace("/", "__"), data


def _exists(corpus: Path, package: str, clip: tuple[str, bytes]) -> bool:
    return (corpus / package / f"{clip[0]}.flac").exists()


def _of_the_game(debs: dict[str, Path], corpus: Path) -> Iterable[Clip]:
    samples = decode(QUEEN, debs[QUEEN], corpus)
    known: set[str] = set()
    for _, archive in deb.files(debs[QUEEN], source(QUEEN).pattern):
        for line in amazon_queen.lines(archive):
            if line.voice and line.name in samples and _new(corpus / QUEEN / f"{line.name}.flac", known):
                yield Clip(QUEEN, line.name, line.voice, _clean(line.text), samples[line.name])


def _of_the_operator(debs: dict[str, Path], corpus: Path) -> Iterable[Clip]:
    samples = decode(asterisk.RECORDINGS, debs[asterisk.RECORDINGS], corpus)
    said = asterisk.texts(debs[asterisk.TEXTS])
    known: set[str] = set()
    for name, length in samples.items():
        if name in said and _new(corpus / asterisk.RECORDINGS / f"{name}.flac", known):
            yield Clip(asterisk.RECORDINGS, name, OPERATOR, _clean(said[name]), length)


def _new(path: Path, known: set[str]) -> bool:
    """Whether no clip before sounds the same."""
    samples, _ = soundfile.read(io.BytesIO(path.read_bytes()), dtype="int16")
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    new = digest not in known
    known.add(digest)
    return new


def _clean(text: str) -> str:
    return " ".join(text.split())
