"""Lists of audio that several tasks share; each takes the configuration of run_downstream.

A task module passes such a function as ``audio``: it returns the files of each split.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...utils.files import visible_files
from ...utils.readers import read_words

SPLITS = ("train", "dev", "test")


def matching(root: Path, pattern: str) -> list[Path]:
    """Return the files below a folder that match a pattern, sorted and without hidden ones.

    Raises:
        DataError: there are none.
    """
    files = visible_files(root, pattern)
    if not files:
        raise DataError(f"{root}: no {pattern}")
    return files


def ctc_splits(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what the ``corpus`` of s3prl's ctc lists as training, development and test set."""
    corpus = config["downstream_expert"]["corpus"]
    places = {split: corpus[split] for split in SPLITS}
    return {split: [each] if isinstance(each, str) else list(each) for split, each in places.items()}


def kaldi_audio(folder: Path) -> list[Path]:
    """Return the files of a ``wav.scp``, whose lines are a name and a path."""
    return [Path(path) for _, path in read_words(folder / "wav.scp", least=2, most=2)]


def mixtures(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return inputs and targets of s3prl's enhancement and separation, by the ``wav.scp`` of each split."""
    expert, files = config["downstream_expert"], {}
    for split in SPLITS:
        folder = Path(expert["loaderrc"][f"{split}_dir"])
        files[split] = kaldi_audio(folder / expert["datarc"]["src"][0])
        targets = expert["datarc"]["tgt"]
        files[f"{split} targets"] = [file for name in targets for file in kaldi_audio(folder / name)]
    return files
