"""The embedded speech as a corpus in the layout of VoxCeleb1, for speaker identification."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import soundfile

from ..constants import SAMPLE_RATE
from ..data.audio import read
from ..utils import resources
from ..utils.files import write_text
from ..utils.readers import read_table

LIST = "veri_test_class.txt"
TRAIN, DEV, TEST = 1, 2, 3
CYCLE = (TRAIN, TRAIN, TRAIN, DEV, TEST)
"""Splits to which the clips of a voice are dealt in turn."""

LEAST, MOST = 6, 45
"""Clips per voice: one with fewer is left out, more are thinned out so that no voice is a safe guess."""


@dataclass(frozen=True)
class SpeakerClip:
    """One clip of the corpus.

    Attributes:
        source: the embedded file.
        name: path below ``dev/wav``, ``idXXXXX/voice/n.wav``.
        split: 1 for train, 2 for dev, 3 for test.
    """

    source: Path
    name: str
    split: int

    @property
    def speaker(self) -> str:
        """Identifier of the speaker, ``idXXXXX``."""
        return self.name.partition("/")[0]


def choose(speech: Path | None = None) -> list[SpeakerClip]:
    """Deal the clips of the voices that have enough of them to train, dev and test.

    A person who speaks two languages is one speaker; the languages are separate folders, as videos are in
    VoxCeleb.

    Args:
        speech: folder with ``manifest.tsv`` and the files it lists; the embedded speech by default.
    """
    speech = speech or resources.find("assets/speech")
    voices: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in read_table(speech / "manifest.tsv", ("speaker", "lang", "path")):
        person = row["speaker"].replace(f"_{row['lang'][:2]}_", "_")
        voices[person].append((row["speaker"], row["path"]))
    selected = []
    eligible = [sorted(voices[voice]) for voice in sorted(voices) if len(voices[voice]) >= LEAST]
    for speaker, clips in enumerate(eligible, start=10_001):
        count = min(len(clips), MOST)
        for index in range(count):
            voice, path = clips[index * len(clips) // count]
            name = f"id{speaker}/{voice}/{index + 1:05}.wav"
            selected.append(SpeakerClip(speech / path, name, CYCLE[index % len(CYCLE)]))
    return selected


def build(out: Path, clips: list[SpeakerClip]) -> None:
    """Write ``dev/wav/idXXXXX/voice/n.wav`` at 16 kHz and, last, ``veri_test_class.txt``.

    A complete corpus of the same clips is left unchanged, one of other clips is replaced.
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


def chance(clips: list[SpeakerClip]) -> float:
    """Return the accuracy of a constant guess: the share of the most frequent voice in the test clips."""
    speakers = [clip.speaker for clip in clips if clip.split == TEST]
    return max(map(speakers.count, speakers)) / len(speakers)
