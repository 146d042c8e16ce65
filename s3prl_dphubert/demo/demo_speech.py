"""The embedded voices as a corpus in the layout of VoxCeleb1, for speaker identification."""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import soundfile

from ..constants import SAMPLE_RATE
from ..data.audio import read
from ..utils import resources
from ..utils.files import write_text

LIST = "veri_test_class.txt"
TRAIN, DEV, TEST = 1, 2, 3
TURN = (TRAIN, TRAIN, TRAIN, DEV, TEST)
"""Which split a voice's clips go to, one after the other."""

LEAST, MOST = 6, 45
"""Clips of a voice: with fewer it is left out, more are thinned out, so that none is the safe guess."""


@dataclass(frozen=True)
class Clip:
    """One clip of the corpus.

    Attributes:
        source: the embedded file.
        name: its path below ``dev/wav``, ``idXXXXX/voice/n.wav``.
        split: 1 train, 2 dev, 3 test.
    """

    source: Path
    name: str
    split: int

    @property
    def speaker(self) -> str:
        """``idXXXXX``."""
        return self.name.partition("/")[0]


def choose(speech: Path | None = None) -> list[Clip]:
    """Deal the clips of the voices that have enough of them to train, dev and test.

    Who speaks two languages is one speaker; as VoxCeleb's videos do, the folders in between tell them
    apart.

    Args:
        speech: a folder with ``manifest.tsv`` and what it lists; the embedded speech by default.
    """
    speech = speech or resources.find("assets/speech")
    voices: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with (speech / "manifest.tsv").open(encoding="utf8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            person = row["speaker"].replace(f"_{row['lang'][:2]}_", "_")
            voices[person].append((row["speaker"], row["path"]))
    chosen = []
    enough = [sorted(voices[voice]) for voice in sorted(voices) if len(voices[voice]) >= LEAST]
    for speaker, clips in enumerate(enough, start=10_001):
        count = min(len(clips), MOST)
        for index in range(count):
            voice, path = clips[index * len(clips) // count]
            name = f"id{speaker}/{voice}/{index + 1:05}.wav"
            chosen.append(Clip(speech / path, name, TURN[index % len(TURN)]))
    return chosen


def build(out: Path, clips: list[Clip]) -> None:
    """Write ``dev/wav/idXXXXX/voice/n.wav`` at 16 kHz and, last, ``veri_test_class.txt``.

    What is there already is left as it is, what another choice of clips has left is replaced.
    """
    text = "".join(f"{clip.split} {clip.name}\n" for clip in clips)
    if (out / LIST).exists() and (out / LIST).read_text(encoding="utf8") == text:
        return
    shutil.rmtree(out, ignore_errors=True)
    for clip in clips:
        path = out / "dev" / "wav" / clip.name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, read(clip.source), SAMPLE_RATE, subtype="PCM_16")
    write_text(out / LIST, text)


def chance(clips: list[Clip]) -> float:
    """Share of the test clips that the most frequent voice has: what a constant guess gets right."""
    tested = [clip.speaker for clip in clips if clip.split == TEST]
    return max(map(tested.count, tested)) / len(tested)
