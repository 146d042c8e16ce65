"""Libri2Mix for separation: mixtures cut to the shorter voice and both voices, as lists in Kaldi's layout."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...utils.files import visible_files, write_text
from .corpus_files import require_folder
from .step import Config, PreparationStep

SOURCE = "https://github.com/s3prl/LibriMix (generate_librimix_ss.sh)"
AUDIO = "Libri2Mix/wav16k/min"  # below the folder of data
KINDS = ("mix_clean", "s1", "s2")
SPLITS = ("train-100", "dev", "test")
DEV, SEED = 1000, 7  # SUPERB-SG's development set is a draw of 1000 of the 3000, by Python's generator
MADE = "libri2mix_ss"


def lists(data: Path, out: Path, config: Config) -> None:
    """Write ``libri2mix_ss/{train-100,dev_1000,test}/{mix_clean,s1,s2}/wav.scp``."""
    root = require_folder(data / AUDIO, "Libri2Mix at 16 kHz in mode min", SOURCE)
    for split in SPLITS:
        files = {kind: _files(root / split / kind, kind) for kind in KINDS}
        names = sorted(files["mix_clean"])
        if not names or any(set(names) != set(paths) for paths in files.values()):
            counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in files.items())
            raise DataError(f"{root / split}: holds {counts}, allowed: as many of the same names, 1 or more")
        target = out / MADE / split
        if split == "dev":
            names, target = draw(names), out / MADE / f"dev_{DEV}"
        for kind, paths in files.items():
            (target / kind).mkdir(parents=True)
            write_text(target / kind / "wav.scp", "".join(f"{name} {paths[name]}\n" for name in names))


def _files(folder: Path, kind: str) -> dict[str, Path]:
    """Return utterance -> file of a folder."""
    files = visible_files(require_folder(folder, kind, SOURCE), "*.wav")
    return {path.stem: path.absolute() for path in files}


def draw(names: Iterable[str]) -> list[str]:
    """Draw the same 1000 names as s3prl's ``subsample.py``, sorted; all of them where there are fewer."""
    shuffled = sorted(names)
    random.Random(SEED).shuffle(shuffled)
    return sorted(shuffled[:DEV])


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    yield data / AUDIO
    yield from (data / AUDIO / split / kind for split in SPLITS for kind in KINDS)


LISTS = PreparationStep("libri2mix_separation", lists, _inputs, quick=True)
