"""Make the tables that ship: where each word lies, and how each is pronounced, by forced alignment.

``python -m s3prl_dphubert.mini.align DIR`` aligns the labelled clips of ``DIR/corpus`` with pocketsphinx
(PyPI, BSD; its acoustic model and CMU's dictionary are inside) and writes ``DIR/alignments.tsv`` and
``DIR/lexicon.tsv``; about six minutes of one core. A build uses the copies beside this module.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from ..utils.files import write_text
from .corpus import Clip, normalise, read_clips
from .sources.recordings import worker_pool

SEARCHES: tuple[dict[str, float], ...] = (
    {"logbase": 1.0002, "beam": 1e-60, "wbeam": 1e-40, "pbeam": 1e-60},
    {"logbase": 1.0003, "beam": 1e-80, "wbeam": 1e-60, "pbeam": 1e-80},
)
"""A narrow beam loses voices far from the acoustic model's. Scores are 32 bit integers to the base: at the
usual 1.0001 a wide beam overflows, and a coarse base misplaces words, both without a word. What two searches
agree on counts."""

AGREED = 10  # frames that the ends of a word may differ by

PAD = 10  # frames of silence at either end, where a recording was cut close to a word
FRAME = 160  # samples

PACE = (0.04, 0.25)
"""Mean seconds of a phone between which a text fits its recording."""


@dataclass(frozen=True)
class Word:
    """An aligned word: spelling, 10 ms frames from and for how long, phones."""

    text: str
    start: int
    length: int
    phones: tuple[str, ...]


@cache
def _decoder(search: int) -> Any:
    from pocketsphinx import Decoder

    return Decoder(lm=None, loglevel="FATAL", **SEARCHES[search])


def align(clip: Clip, corpus: Path) -> list[Word]:
    """Words of a clip; none where a word is not in the dictionary or text and recording do not fit."""
    words = normalise(clip.text)
    if not words or any(_decoder(0).lookup_word(word.lower()) is None for word in words):
        return []
    silence = np.zeros(PAD * FRAME, np.int16)
    samples = np.concatenate([silence, soundfile.read(corpus / clip.path, dtype="int16")[0], silence])
    found = [_search(n, words, samples.tobytes(), clip.samples // FRAME) for n in range(len(SEARCHES))]
    whole = all(tuple(word.text for word in each) == words for each in found)
    return found[0] if whole and _agree(*found) and _paced(found[0]) else []


def _search(number: int, words: tuple[str, ...], samples: bytes, frames: int) -> list[Word]:
    """What one search finds, which may lack words."""
    decoder = _decoder(number)
    decoder.set_align_text(" ".join(words).lower())
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return []
    return [_word(segment, decoder, frames) for segment in decoder.seg() if _is_word(segment)]


def _agree(first: list[Word], second: list[Word]) -> bool:
    return all(
        max(abs(a.start - b.start), abs(a.start + a.length - b.start - b.length)) <= AGREED
        for a, b in zip(first, second, strict=True)
    )


def _paced(found: list[Word]) -> bool:
    """Whether every word lasts and the phones are as long as phones are."""
    seconds = sum(word.length for word in found) / 100
    mean = seconds / sum(len(word.phones) for word in found)
    return all(word.length > 0 for word in found) and PACE[0] <= mean <= PACE[1]


def _is_word(segment: Any) -> bool:
    """Whether it is no silence, no noise and no empty transition."""
    return not segment.word.startswith(("<", "(", "["))


def _word(segment: Any, decoder: Any, frames: int) -> Word:
    """A segment in frames of the clip as it is without the silence around it."""
    start = max(segment.start_frame - PAD, 0)
    end = min(segment.end_frame + 1 - PAD, frames)
    phones = decoder.lookup_word(segment.word)
    return Word(_spelling(segment.word), start, end - start, tuple(phones.split()))


def _spelling(name: str) -> str:
    """Without the number of the pronunciation."""
    return name.partition("(")[0].upper()


def main(argv: list[str] | None = None) -> int:
    """Align everything; returns the exit code."""
    parser = argparse.ArgumentParser(description="Align the labelled clips of a mini-SUPERB corpus.")
    parser.add_argument("folder", type=Path, help="folder of a build, which holds corpus/")
    folder: Path = parser.parse_args(argv).folder
    corpus = folder / "corpus"
    clips = read_clips(corpus / "clips.tsv")
    spoken: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    rows = ["name\twords\n"]
    with worker_pool() as workers:
        aligned = workers.map(partial(align, corpus=corpus), clips, chunksize=16)
        for clip, words in zip(
            clips, tqdm(aligned, total=len(clips), desc="align", unit="clip"), strict=True
        ):
            if words:
                rows.append(f"{clip.name}\t{' '.join(f'{word.start}:{word.length}' for word in words)}\n")
            for word in words:
                spoken[word.text][word.phones] += 1
    write_text(folder / "alignments.tsv", "".join(rows))
    said = (f"{word}\t{' '.join(min(_commonest(spoken[word])))}\n" for word in sorted(spoken))
    write_text(folder / "lexicon.tsv", "".join(["word\tphones\n", *said]))
    return 0


def _commonest(counts: Counter[tuple[str, ...]]) -> list[tuple[str, ...]]:
    most = max(counts.values())
    return [phones for phones, count in counts.items() if count == most]


if __name__ == "__main__":
    sys.exit(main())
