"""The aligned corpus of a FreeSUPERB build for probes: recordings of the game whose words have times."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import DataError
from ..probe.aligned_corpus import AlignedCorpus, AlignedUtterance, Segment
from .build import MARK, TABLES
from .clips import read_clips
from .utterance import AlignedUnit, load

CLIPS = "corpus/clips.tsv"


def is_build(folder: Path) -> bool:
    """Return whether a folder holds a build of FreeSUPERB."""
    return (folder / MARK).is_file()


def aligned_corpus(build: Path, tables: Path = TABLES) -> AlignedCorpus:
    """Return the recordings of a build with the times of their words and phones.

    The telephone prompts are left out: their channel would tell their voice from all others.

    Args:
        build: folder of the build.
        tables: folder with ``alignments.tsv.gz``, ``phones.tsv.gz`` and ``lexicon.tsv.gz``.

    Raises:
        DataError: the build has no recordings yet, or the tables belong to other ones.
    """
    table = build / CLIPS
    if not table.is_file():
        raise DataError(f"{build}: has no {CLIPS}; build a task with recordings first, such as --tasks pr")
    material = load(read_clips(table), build / "corpus", tables)
    return AlignedCorpus(
        "FreeSUPERB",
        tuple(
            AlignedUtterance(
                each.path, each.clip.voice, each.split, _segments(each.words), _segments(each.phones)
            )
            for each in material.of_the_game()
            if each.words
        ),
    )


def _segments(units: Iterable[AlignedUnit]) -> tuple[Segment, ...]:
    return tuple(Segment(unit.text, unit.start, unit.end) for unit in units)
