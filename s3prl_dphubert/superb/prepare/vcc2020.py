"""The database of the Voice Conversion Challenge 2020: a folder a speaker, and lists of utterances."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...utils.files import visible_files, write_text
from ..tasks.vc import SOURCES, TARGETS
from .corpus_files import require_folder
from .step import Config, PreparationStep

SOURCE = "https://github.com/nii-yamagishilab/VCC2020-database (all of its archives, unpacked in one folder)"
CORPUS = "VCC2020"  # below the folder of data
PLACES = (  # of the speakers' folders: s3prl's own layout, and the archives'
    "",
    "source",
    "target_task1",
    "vcc2020_database_evaluation",
    "vcc2020_database_groundtruth",
)
LISTS = {  # numbers of utterances, as s3prl splits them
    "E_train_list": [f"E1{number:04}" for number in range(1, 61)]
    + [f"E2{number:04}" for number in range(1, 51)],
    "E_dev_list": [f"E1{number:04}" for number in range(61, 71)],
    "eval_list": [f"E3{number:04}" for number in range(1, 26)],
}


def speakers(data: Path, out: Path, config: Config) -> None:
    """Write ``vcc2020/SPEAKER/NUMBER.wav``, links to the corpus, and ``vcc2020/lists``.

    Utterances that the corpus lacks for some speaker are left out of the list of the evaluation. Every
    speaker must have utterances in it, and every target speaker in the other two lists.
    """
    root, made = require_folder(data / CORPUS, "the VCC2020 database", SOURCE), out / "vcc2020"
    faults, available = [], []
    for speaker in (*SOURCES, *TARGETS):
        files = _files(root, speaker)
        (made / speaker).mkdir(parents=True)
        for name, path in files.items():
            os.symlink(path, made / speaker / f"{name}.wav")
        needed = ("eval_list",) if speaker in SOURCES else LISTS
        faults += [f"{speaker} has none of {name}" for name in needed if not files.keys() & set(LISTS[name])]
        available.append(files.keys())
    if faults:
        raise DataError(f"{root}: {'; '.join(faults)}; get them from {SOURCE}")
    (made / "lists").mkdir()
    for name, numbers in LISTS.items():
        if name == "eval_list":
            numbers = [number for number in numbers if all(number in files for files in available)]
        write_text(made / "lists" / f"{name}.txt", "\n".join(numbers) + "\n")


def _files(root: Path, speaker: str) -> dict[str, Path]:
    paths = (path for place in PLACES for path in visible_files(root / place / speaker, "E*.wav"))
    return {path.stem: path.absolute() for path in paths}


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    yield data / CORPUS
    yield from (data / CORPUS / place / speaker for place in PLACES[1:] for speaker in (*SOURCES, *TARGETS))


SPEAKERS = PreparationStep("vcc2020_speakers", speakers, _inputs, quick=True)
