"""A corpus on disk: planned as a list of files, then written completely or not at all."""

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
        path: path below the folder of a build; its suffix gives the format.
        task: name of the task.
        split: ``train``, ``dev`` or ``test``, or the task's own name for something else.
        voices: speakers in the file.
        render: returns the samples (T,) at 16 kHz.
        clips: recordings that the file is made of, below ``corpus``; none if it is synthesised.
        label: class of the file, for the tables of splits.
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
        """Licences of its recordings."""
        licences = {_LICENCES[clip.partition("/")[0]] for clip in self.clips}
        return "; ".join(sorted(licences)) or SYNTHESISED

    @classmethod
    def of(
        cls,
        utterance: Utterance,
        path: str,
        task: str,
        split: str,
        render: Callable[[], np.ndarray] | None = None,
        label: str = "",
    ) -> Piece:
        """Return a file made of one recording, by default of all of it."""
        render = render or utterance.audio
        return cls(path, task, split, (utterance.clip.voice,), render, (utterance.clip.path,), label)


@dataclass(frozen=True)
class CorpusPlan:
    """All files of a corpus.

    Attributes:
        pieces: the audio files.
        texts: path of a text file below the folder of a build -> content.
    """

    pieces: tuple[Piece, ...]
    texts: dict[str, str]

    @property
    def folders(self) -> list[str]:
        """Folders that the corpus fills, which it shares with no other."""
        paths = [*(piece.path for piece in self.pieces), *self.texts]
        return sorted({path.partition("/")[0] for path in paths})


def write(name: str, plan: CorpusPlan, out: Path) -> None:
    """Write a corpus; its table ``manifests/NAME.tsv`` appears last and marks it as complete.

    Args:
        name: name of the table.
        plan: files of the corpus.
        out: folder of the build; folders left by an unfinished attempt are replaced.

    Raises:
        CheckpointError: the files cannot be written.
    """
    fresh = out / f".{name}.fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    rows = ["\t".join(COLUMNS)]
    with new_folder(fresh) as partial:
        for piece in tqdm(plan.pieces, desc=name, unit="file", mininterval=0.5):
            seconds = _write_audio(partial / piece.path, piece.render())
            cells = (piece.path, piece.task, piece.split, f"{seconds:.3f}", " ".join(piece.voices))
            rows.append("\t".join([*cells, piece.label, " ".join(piece.clips), piece.licences]))
        for path, text in plan.texts.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            write_text(partial / path, text)
    for folder in plan.folders:
        shutil.rmtree(out / folder, ignore_errors=True)
        os.replace(fresh / folder, out / folder)
    fresh.rmdir()
    (out / "manifests").mkdir(exist_ok=True)
    write_text(out / "manifests" / f"{name}.tsv", "\n".join(rows) + "\n")


def _write_audio(path: Path, audio: np.ndarray) -> float:
    """Write samples as 16-bit PCM, attenuated if they would clip; returns their length in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    peak = float(np.abs(audio).max(initial=0.0))
    soundfile.write(path, audio * min(1.0, PEAK / peak) if peak else audio, SAMPLE_RATE, subtype="PCM_16")
    return len(audio) / SAMPLE_RATE
