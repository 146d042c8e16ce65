"""IEMOCAP: the four emotions of ER and its five folds, from the corpus's own evaluations."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...utils.config_io import read_yaml
from ...utils.files import visible_files, write_text
from .corpus_files import config_value, require_folder
from .step import Config, PreparationStep

log = logging.getLogger(__name__)
SOURCE = "https://sail.usc.edu/iemocap (by request)"
LABELS = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
MERGED = {"exc": "hap"}  # excitement counts as happiness


def folds(data: Path, out: Path, config: Config) -> None:
    """Write ``meta_data/SessionN/{train,test}_meta_data.json``: a session is tested, the others train.

    Improvised and scripted dialogues both count. With the whole corpus the lists are s3prl's own, in
    their order, on which the development set depends; the log says so where they are not.
    """
    root = require_folder(Path(config_value(config, "datarc", "root")), "IEMOCAP", SOURCE)
    sessions = [place for place in sorted(root.glob("Session[1-5]")) if place.is_dir()]
    if len(sessions) < 2:
        raise DataError(f"{root}: holds {len(sessions)} of the folders Session1 to Session5; from {SOURCE}")
    by_session = {session.name: utterances(session) for session in sessions}
    for name, tested in by_session.items():
        others = [row for other, rows in by_session.items() if other != name for row in rows]
        (out / "meta_data" / name).mkdir(parents=True)
        for split, rows in (("train", others), ("test", tested)):
            text = json.dumps({"labels": LABELS, "meta_data": rows})
            write_text(out / "meta_data" / name / f"{split}_meta_data.json", text)
            if split == "test" and hashlib.sha256(text.encode()).hexdigest() != _published()[name]["sha256"]:
                log.warning("%s: %d utterances, not the list of s3prl", root / name, len(rows))


def utterances(session: Path) -> list[dict[str, str]]:
    """Return the utterances of a session with one of the four emotions, in s3prl's order.

    Raises:
        DataError: the session has no evaluations, or no audio of such an utterance.
    """
    evaluations = require_folder(session / "dialog" / "EmoEvaluation", "evaluations of IEMOCAP", SOURCE)
    audio = require_folder(session / "sentences" / "wav", "audio of IEMOCAP", SOURCE)
    order = {name: index for index, name in enumerate(dialogs(session.name))}
    files = visible_files(evaluations, "*.txt")
    files.sort(key=lambda file: (order.get(file.stem, len(order)), file.name))
    rows = [row for file in files for row in _dialog(file, audio)]
    if not rows:
        raise DataError(f"{evaluations}: holds no evaluation of an utterance in {audio}; unpack IEMOCAP anew")
    return rows


def dialogs(session: str) -> list[str]:
    """Return the dialogues of a session such as ``Session1`` in the order of s3prl's list."""
    first = f"Ses{int(session[-1]):02}"
    return [f"{first}{name}" for name in _published()[session]["dialogs"].split()]


def _dialog(file: Path, audio: Path) -> list[dict[str, str]]:
    """Read lines such as ``[1.0 - 2.5]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5, 2.5, 2.5]``."""
    rows = []
    for line in file.read_text(encoding="utf8", errors="replace").splitlines():
        times, *words = line.split("\t")
        if not times.startswith("[") or len(words) < 2:
            continue
        name, emotion = words[0], MERGED.get(words[1], words[1])
        path = audio / name.rpartition("_")[0] / f"{name}.wav"
        if emotion in LABELS and path.is_file():
            place = path.relative_to(audio.parents[2]).as_posix()
            rows.append({"path": place, "label": emotion, "speaker": name.partition("_")[0]})
    return sorted(rows, key=lambda row: row["path"])


@cache
def _published() -> dict[str, Any]:
    """Read order and SHA-256 of s3prl's own lists, by session."""
    return read_yaml(Path(__file__).with_suffix(".yaml"))


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    for session in sorted(Path(config_value(config, "datarc", "root")).glob("Session[1-5]")):
        yield session / "sentences" / "wav"
        yield from sorted((session / "dialog" / "EmoEvaluation").glob("*.txt"))


FOLDS = PreparationStep("iemocap_folds", folds, _inputs, quick=True)
