"""Audio of other rates brought to 16 kHz, for the tasks that do not do so themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile
from tqdm import tqdm

from ...constants import SAMPLE_RATE
from ...data.audio import read


def convert(pairs: Iterable[tuple[Path, Path]], title: str) -> None:
    """Write each first file as 16 bit WAV of 16 kHz at the second's place.

    Args:
        pairs: what is there, and where to write; the folders of the second are made.
        title: of the progress bar.

    Raises:
        DataError: a file cannot be decoded.
    """
    wanted = list(pairs)
    for place in {target.parent for _, target in wanted}:
        place.mkdir(parents=True, exist_ok=True)
    # Decoding and resampling let go of the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in tqdm(pool.map(_convert, wanted), desc=title, total=len(wanted), unit="file"):
            pass


def _convert(pair: tuple[Path, Path]) -> None:
    source, target = pair
    soundfile.write(target, read(source), SAMPLE_RATE, subtype="PCM_16")
