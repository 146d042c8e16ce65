"""Data sets of utterances and their tokens, one by one or in buckets of similar length."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ...errors import DataError
from ...utils.files import visible_files

Utterance = tuple[Path, list[int]]


class Buckets(Dataset):
    """Data set of pairs of audio file and tokens.

    Args:
        utterances: the pairs.
        bucket_size: 1 gives single pairs; a larger size gives lists of that many neighbours, one starting at
            each index (so an epoch sees an utterance about ``bucket_size`` times, as s3prl's recipes expect).
    """

    def __init__(self, utterances: Iterable[Utterance], bucket_size: int) -> None:
        self.utterances = list(utterances)
        self.bucket_size = bucket_size

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> Any:
        if self.bucket_size == 1:
            return self.utterances[index]
        first = max(0, min(index, len(self) - self.bucket_size))
        return self.utterances[first : first + self.bucket_size]


def by_length(utterances: Iterable[Utterance], ascending: bool) -> list[Utterance]:
    """Sort by number of tokens, longest first unless ``ascending``, and by path among equals."""
    return sorted(sorted(utterances), key=lambda pair: len(pair[1]), reverse=not ascending)


def audio_files(root: str | Path, split: str, suffix: str) -> list[Path]:
    """Return all files of a split, sorted.

    Raises:
        DataError: the split has none.
    """
    files = visible_files(Path(root, split), f"**/*{suffix}")
    if not files:
        raise DataError(f"{Path(root, split)}: no {suffix} files; check corpus.path and the split names")
    return files
