"""A corpus as it will be on disk: planned as a list of files, then written, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..utils.files import new_folder, write_text
from .sources.recordings import SOURCES
from .utterance import Utterance

SYNTHESISED = "own text, synthesised by eSpeak NG"
COLUMNS = ("path", "task", "split", "seconds", "voices", "label", "clips", "licences")
PEAK = 0.99
_LICENCES = {source.package: source.licence for source in SOURCES}


@dataclass(frozen=True)
class Piece:
    """One file of audio.

    Attributes:
        path: below the folder of a build; its suffix names the format.
        task: that it is for.
        split: ``train``, ``dev``, ``test``, or ``test-other`` out of domain.
        voices: who is heard.
        render: gives the samples (T,), 16 kHz.
        clips: the recordings it is made of, below ``corpus``; none where it is synthesised.
        label: what a task may learn from it, for the table of splits.
    """

    path: str
    task: str
    split: str
    voices: tuple[str, ...]
    render: Callable[[], np.ndarray] = field(repr=False)
    clips: tuple[str, ...] = ()
    label: str = ""

    @property
    def licences(self) -> str:
        """Of its recordings."""
        found = {_LICENCES[clip.partition("/")[0]] for clip in self.clips}
        return "; ".join(sorted(found)) or SYNTHESISED


@dataclass(frozen=True)
class Plan:
    """All files of a layout.

    Attributes:
        pieces: audio.
        texts: path below the folder of a build -> content.
    """

    pieces: tuple[Piece, ...]
    texts: dict[str, str]

    @property
    def folders(self) -> list[str]:
        """The folders that it fills, which are no other layout's."""
        paths = [*(piece.path for piece in self.pieces), *self.texts]
        return sorted({path.partition("/")[0] for path in paths})


def piece(
    path: str,
    task: str,
    split: str,
    used: Utterance,
    render: Callable[[], np.ndarray] | None = None,
    label: str = "",
) -> Piece:
    """A file made of one recording; by default it is the whole of it."""
    return Piece(path, task, split, (used.clip.voice,), render or used.audio, (used.clip.path,), label)


def write(name: str, plan: Plan, out: Path) -> None:
    """Write a layout; its table ``manifests/NAME.tsv`` appears last and says that it is whole.

    Args:
        name: of the layout.
        plan: its files.
        out: folder of the build; folders of an unfinished attempt are replaced.

    Raises:
        CheckpointError: the files cannot be written.
    """
    fresh = out / f".{name}.fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    rows = ["\t".join(COLUMNS)]
    with new_folder(fresh) as partial:
        for one in tqdm(plan.pieces, desc=name, unit="file", mininterval=0.5):
            seconds = _put(partial / one.path, one.render())
            cells = (one.path, one.task, one.split, f"{seconds:.3f}", " ".join(one.voices), one.label)
            rows.append("\t".join([*cells, " ".join(one.clips), one.licences]))
        for path, text in plan.texts.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            write_text(partial / path, text)
    for folder in plan.folders:
        shutil.rmtree(out / folder, ignore_errors=True)
        os.replace(fresh / folder, out / folder)
    fresh.rmdir()
    (out / "manifests").mkdir(exist_ok=True)
    write_text(out / "manifests" / f"{name}.tsv", "\n".join(rows) + "\n")


def _put(path: Path, audio: np.ndarray) -> float:
    """Write 16 bit PCM, turned down if it would be clipped; returns its seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    peak = float(np.abs(audio).max(initial=0.0))
    soundfile.write(path, audio * min(1.0, PEAK / peak) if peak else audio, SAMPLE_RATE, subtype="PCM_16")
    return len(audio) / SAMPLE_RATE
