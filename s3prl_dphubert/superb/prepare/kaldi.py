"""Kaldi folders whose ``wav.scp`` has paths relative to the folder of data; s3prl needs absolute ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from ...utils.files import write_text
from .corpus_files import read_pairs, require_files, require_folder
from .step import Config, PreparationStep

CORPUS = "conversations"  # below the folder of data
SPLITS = ("train", "dev", "test")
TABLES = ("segments", "utt2spk", "spk2utt", "reco2dur", "rttm")
SOURCE = "s3prl-dphubert free-superb"


def places(data: Path, out: Path, config: Config) -> None:
    """Copy ``conversations/{train,dev,test}``, but for the audio; paths in ``wav.scp`` become absolute."""
    for split in SPLITS:
        place = require_folder(data / CORPUS / split, "conversations of two voices", SOURCE)
        require_files([place / table for table in TABLES], "a table of conversations", SOURCE)
        rows = read_pairs(place / "wav.scp", "names of recordings", SOURCE, "name and path")
        require_files([data / path for _, path in rows], f"{place / 'wav.scp'} lists it", SOURCE)
        made = out / CORPUS / split
        made.mkdir(parents=True)
        for table in TABLES:
            shutil.copyfile(place / table, made / table)
        write_text(made / "wav.scp", "".join(f"{name} {(data / path).absolute()}\n" for name, path in rows))


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    for split in SPLITS:
        yield from (data / CORPUS / split / table for table in ("wav.scp", *TABLES))
        yield data / CORPUS / split / "wav"


PLACES = PreparationStep("kaldi_places", places, _inputs, quick=True)
