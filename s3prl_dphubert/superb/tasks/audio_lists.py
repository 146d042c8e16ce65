"""Lists of audio that several tasks share; each takes the configuration of run_downstream.

A task module passes such a function as ``audio``: it yields files, whose headers are measured, or seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError


def matching(root: Path, pattern: str) -> Iterable[Path]:
    """Return the files below a folder that match a pattern, sorted.

    Raises:
        DataError: there are none.
    """
    files = sorted(root.glob(pattern))
    if not files:
        raise DataError(f"{root}: no {pattern}")
    return files


def ctc_splits(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the ``corpus`` of s3prl's ctc lists as training, development and test set."""
    corpus = config["downstream_expert"]["corpus"]
    for split in ("train", "dev", "test"):
        places = corpus[split]
        yield from [places] if isinstance(places, str) else places


def mixtures(config: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the inputs of s3prl's enhancement and separation, from the ``wav.scp`` of each split."""
    expert = config["downstream_expert"]
    for split in ("train", "dev", "test"):
        table = Path(expert["loaderrc"][f"{split}_dir"], expert["datarc"]["src"][0], "wav.scp")
        yield from (Path(line.split()[1]) for line in table.read_text(encoding="utf8").splitlines())
