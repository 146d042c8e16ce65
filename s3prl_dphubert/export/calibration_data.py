"""Speech for calibration, and other speech to check the result on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..data.audio import read
from ..data.manifest import Manifest
from ..utils import resources
from ..utils.readers import read_table

SECONDS = 10  # longer utterances are cut
CALIBRATION, CHECK = 32, 16  # utterances


def calibration(manifest: Path | None, least: int) -> list[Tensor]:
    """Load utterances spread evenly over a manifest; without one, half of the voices that ship.

    Args:
        manifest: manifest of the audio.
        least: minimum number of samples; shorter utterances are padded with zeros.

    Returns:
        Waveforms (1, T) at 16 kHz.

    Raises:
        DataError: the manifest or what it lists cannot be read.
    """
    return _load(_paths(manifest, 0), CALIBRATION, least)


def check(manifest: Path | None, least: int) -> list[Tensor]:
    """Load speech as :func:`calibration` does; without a manifest, the other half of the voices."""
    return _load(_paths(manifest, 1), CHECK, least)


def _paths(manifest: Path | None, half: int) -> list[str | Path]:
    """Audio files of a manifest, or of one half (0 or 1) of the voices that ship."""
    if manifest is not None:
        return [entry.path for entry in Manifest.load(manifest).entries]
    folder = resources.find("assets/speech")
    listed = read_table(folder / "manifest.tsv", ("path", "seconds", "speaker"))
    rows = [row for row in listed if float(row["seconds"]) >= 1]
    voices = sorted({row["speaker"] for row in rows})[half::2]
    return [folder / row["path"] for row in rows if row["speaker"] in voices]


def _load(paths: Sequence[str | Path], count: int, least: int) -> list[Tensor]:
    chosen = [paths[index * len(paths) // count] for index in range(count)] if len(paths) > count else paths
    waveforms = []
    for path in chosen:
        audio = read(path, samples=SECONDS * SAMPLE_RATE)
        waveforms.append(torch.from_numpy(np.pad(audio, (0, max(0, least - len(audio)))))[None])
    return waveforms
