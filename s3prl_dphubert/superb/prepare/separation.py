"""Libri2Mix for separation: mixtures cut to the shorter voice and both voices, as lists in Kaldi's layout."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...utils.files import write_text
from .paths import folder
from .step import Config, Step

SOURCE = "https://github.com/s3prl/LibriMix (generate_librimix_ss.sh)"
AUDIO = "Libri2Mix/wav16k/min"  # below the folder of data
KINDS = ("mix_clean", "s1", "s2")
SPLITS = ("train-100", "dev", "test")
DEV, SEED = 1000, 7  # SUPERB-SG develops on a draw of so many of the 3000, by Python's generator
MADE = "libri2mix_ss"


def lists(data: Path, out: Path, config: Config) -> None:
    """Write ``libri2mix_ss/{train-100,dev_1000,test}/{mix_clean,s1,s2}/wav.scp``."""
    root = folder(data / AUDIO, "Libri2Mix at 16 kHz in mode min", SOURCE)
    for split in SPLITS:
        files = {
            kind: {
                path.stem: path.resolve() for path in folder(root / split / kind, kind, SOURCE).glob("*.wav")
            }
            for kind in KINDS
        }
        names = sorted(files["mix_clean"])
        if not names or any(set(names) != set(found) for found in files.values()):
            counts = ", ".join(f"{len(found)} {kind}" for kind, found in files.items())
            raise DataError(f"{root / split}: holds {counts}, allowed: as many of the same names, 1 or more")
        place = out / MADE / split
        if split == "dev":
            names, place = drawn(names), out / MADE / f"dev_{DEV}"
        for kind, found in files.items():
            (place / kind).mkdir(parents=True)
            write_text(place / kind / "wav.scp", "".join(f"{name} {found[name]}\n" for name in names))


def _files(place: Path, kind: str) -> dict[str, Path]:
    return {path.stem: path.resolve() for path in folder(place, kind, SOURCE).glob("*.wav")}


def drawn(names: Iterable[str]) -> list[str]:
    """The 1000 names that s3prl's ``subsample.py`` draws, in order; all where there are no more."""
    shuffled = sorted(names)
    random.Random(SEED).shuffle(shuffled)
    return sorted(shuffled[:DEV])


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    yield data / AUDIO
    yield from (data / AUDIO / split / kind for split in SPLITS for kind in KINDS)


LISTS = Step("libri2mix_separation", lists, _inputs)
