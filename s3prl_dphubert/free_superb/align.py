"""Make the tables that ship with FreeSUPERB, times of words and phones and a lexicon, by forced alignment.

``python -m s3prl_dphubert.free_superb.align DIR`` aligns the labelled clips of ``DIR/corpus`` with
pocketsphinx (PyPI, BSD; includes its acoustic model and the CMU dictionary) and writes
``DIR/alignments.tsv``, ``DIR/phones.tsv`` and ``DIR/lexicon.tsv``; it takes about eight minutes on one core.
A build uses the copies beside this module.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from ..utils.files import write_text
from .clips import Clip, normalise, read_clips
from .sources.recordings import worker_pool

SEARCHES: tuple[dict[str, float], ...] = (
    {"logbase": 1.0002, "beam": 1e-60, "wbeam": 1e-40, "pbeam": 1e-60},
    {"logbase": 1.0003, "beam": 1e-80, "wbeam": 1e-60, "pbeam": 1e-80},
)
"""Options of two searches, whose results must agree. A narrow beam loses voices unlike those of the acoustic
model. Scores are 32-bit integers to the base: at the usual 1.0001 a wide beam overflows, and a coarse base
misplaces words, both silently."""

TOLERANCE = 10  # frames by which the two searches may differ in the start or end of a word
PAD = 10  # frames of silence at either end, since recordings may be cut close to a word
FRAME = 160  # samples
PACE = (0.04, 0.25)
"""Shortest and longest mean of seconds per phone at which a text fits its recording."""


@dataclass(frozen=True)
class AlignedWord:
    """An aligned word.

    Attributes:
        text: spelling in capital letters.
        start: start in frames of 10 ms.
        length: length in frames.
        phones: pronunciation.
    """

    text: str
    start: int
    length: int
    phones: tuple[str, ...]


@dataclass(frozen=True)
class AlignedPhone:
    """An aligned phone of the CMU dictionary without stress, or ``SIL``.

    Attributes:
        text: its symbol.
        start: start in frames of 10 ms.
        length: length in frames.
    """

    text: str
    start: int
    length: int


@dataclass(frozen=True)
class Alignment:
    """Words and phones of a clip in their order; none if its text does not fit."""

    words: tuple[AlignedWord, ...] = ()
    phones: tuple[AlignedPhone, ...] = ()


@cache
def _decoder(search: int) -> Any:
    from pocketsphinx import Decoder

    return Decoder(lm=None, loglevel="FATAL", **SEARCHES[search])


def align(clip: Clip, corpus: Path) -> Alignment:
    """Align the words and phones of a clip; none if a word has no pronunciation or the text does not fit."""
    words = normalise(clip.text)
    if not words or any(_decoder(0).lookup_word(word.lower()) is None for word in words):
        return Alignment()
    silence = np.zeros(PAD * FRAME, np.int16)
    samples = np.concatenate([silence, soundfile.read(corpus / clip.path, dtype="int16")[0], silence])
    audio, frames = samples.tobytes(), clip.samples // FRAME
    first, second = (_search(number, words, audio, frames) for number in range(len(SEARCHES)))
    complete = all(tuple(word.text for word in result) == words for result in (first, second))
    if not (complete and _agree(first, second) and _plausible(first)):
        return Alignment()
    return Alignment(tuple(first), tuple(_phones(audio, frames)))


def _search(number: int, words: tuple[str, ...], samples: bytes, frames: int) -> list[AlignedWord]:
    """Return the result of one search, which may lack words, in frames of the clip without padding."""
    decoder = _decoder(number)
    decoder.reinit_feat()  # else the first frames depend on the clip before
    decoder.set_align_text(" ".join(words).lower())
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return []
    aligned = []
    for segment in decoder.seg():
        if segment.word.startswith(("<", "(", "[")):  # silence, noise or an empty transition
            continue
        spelling = segment.word.partition("(")[0].upper()  # without the number of the pronunciation
        start = max(segment.start_frame - PAD, 0)
        end = min(segment.end_frame + 1 - PAD, frames)
        phones = tuple(decoder.lookup_word(segment.word).split())
        aligned.append(AlignedWord(spelling, start, end - start, phones))
    return aligned


def _phones(audio: bytes, frames: int) -> Iterator[AlignedPhone]:
    """Yield the phones of the words that the first search found last, in frames without padding."""
    decoder = _decoder(0)
    decoder.set_alignment()
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(audio, full_utt=True)
    decoder.end_utt()
    for word in decoder.get_alignment():
        for phone in word:
            start = max(phone.start - PAD, 0)
            end = min(phone.start + phone.duration - PAD, frames)
            if end > start:
                yield AlignedPhone(phone.name, start, end - start)


def _agree(first: list[AlignedWord], second: list[AlignedWord]) -> bool:
    return all(
        max(abs(a.start - b.start), abs(a.start + a.length - b.start - b.length)) <= TOLERANCE
        for a, b in zip(first, second, strict=True)
    )


def _plausible(words: list[AlignedWord]) -> bool:
    """Return whether every word has a length and phones take a plausible time on average."""
    seconds = sum(word.length for word in words) / 100
    mean = seconds / sum(len(word.phones) for word in words)
    return all(word.length > 0 for word in words) and PACE[0] <= mean <= PACE[1]


def main(argv: list[str] | None = None) -> int:
    """Align all labelled clips and write the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description="Align the labelled clips of a FreeSUPERB corpus.")
    parser.add_argument("folder", type=Path, help="folder of a build, which holds corpus/")
    folder: Path = parser.parse_args(argv).folder
    corpus = folder / "corpus"
    clips = read_clips(corpus / "clips.tsv")
    pronunciations: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    tables = {"alignments": ["name\twords\n"], "phones": ["name\tphones\n"]}
    with worker_pool() as workers:
        results = workers.map(partial(align, corpus=corpus), clips, chunksize=16)
        bar = tqdm(results, total=len(clips), desc="align", unit="clip")
        for clip, result in zip(clips, bar, strict=True):
            if result.words:
                words = " ".join(f"{word.start}:{word.length}" for word in result.words)
                phones = " ".join(f"{phone.text}:{phone.start}:{phone.length}" for phone in result.phones)
                tables["alignments"].append(f"{clip.name}\t{words}\n")
                tables["phones"].append(f"{clip.name}\t{phones}\n")
            for word in result.words:
                pronunciations[word.text][word.phones] += 1
    lines = (f"{word}\t{' '.join(_most_frequent(pronunciations[word]))}\n" for word in sorted(pronunciations))
    tables["lexicon"] = ["word\tphones\n", *lines]
    for name, rows in tables.items():
        write_text(folder / f"{name}.tsv", "".join(rows))
    return 0


def _most_frequent(counts: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the most frequent pronunciation; of several, the first in alphabetical order."""
    most = max(counts.values())
    return min(phones for phones, count in counts.items() if count == most)


if __name__ == "__main__":
    sys.exit(main())
