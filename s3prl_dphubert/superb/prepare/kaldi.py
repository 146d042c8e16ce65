"""Kaldi folders whose ``wav.scp`` names files below the folder of data; s3prl wants whole paths."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...utils.files import write_text
from .paths import folder, present, text
from .step import Config, Step

CORPUS = "conversations"  # below the folder of data
SPLITS = ("train", "dev", "test")
TABLES = ("segments", "utt2spk", "spk2utt", "reco2dur", "rttm")
SOURCE = "s3prl-dphubert mini-superb"


def places(data: Path, out: Path, config: Config) -> None:
    """Copy the tables of ``conversations/{train,dev,test}`` and write their ``wav.scp`` with whole paths."""
    for split in SPLITS:
        place = folder(data / CORPUS / split, "conversations of two voices", SOURCE)
        present([place / table for table in TABLES], "a table of conversations", SOURCE)
        rows = [line.split() for line in text(place / "wav.scp", "names of recordings", SOURCE)]
        if bad := [row for row in rows if len(row) != 2]:
            raise DataError(f"{place / 'wav.scp'}: {' '.join(bad[0])[:80]!r} is no name and path")
        present([data / path for _, path in rows], f"{place / 'wav.scp'} lists it", SOURCE)
        made = out / CORPUS / split
        made.mkdir(parents=True)
        for table in TABLES:
            shutil.copyfile(place / table, made / table)
        write_text(made / "wav.scp", "".join(f"{name} {(data / path).resolve()}\n" for name, path in rows))


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    for split in SPLITS:
        yield from (data / CORPUS / split / table for table in ("wav.scp", *TABLES))
        yield data / CORPUS / split / "wav"


PLACES = Step("kaldi_places", places, _inputs)
