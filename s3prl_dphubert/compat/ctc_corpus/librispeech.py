"""LibriSpeech's tree: ``SPLIT/SPEAKER/CHAPTER/*.flac`` with ``SPEAKER-CHAPTER.trans.txt`` beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import DataError
from .buckets import Buckets, audio_files, by_length


class LibriDataset(Buckets):
    """Characters or words of LibriSpeech.

    Args:
        split: names of splits.
        tokenizer: s3prl's text encoder.
        bucket_size: see :class:`Buckets`.
        path: LibriSpeech's root.
        ascending: shortest first.
        **_: further keys of the corpus's configuration, not needed here.

    Raises:
        DataError: a split is empty or an utterance has no transcript.
    """

    def __init__(
        self, split: Iterable[str], tokenizer, bucket_size: int, path: str, ascending: bool = False, **_
    ) -> None:
        pairs = ((file, tokenizer.encode(text)) for file, text in transcribed(path, split))
        super().__init__(by_length(pairs, ascending), bucket_size)


def transcribed(root: str | Path, splits: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """Every utterance of the splits and its words.

    Raises:
        DataError: a split is empty or an utterance has no transcript.
    """
    known: dict[Path, dict[str, str]] = {}
    for split in splits:
        for file in audio_files(root, split, ".flac"):
            beside = file.with_name(file.stem.rpartition("-")[0] + ".trans.txt")
            if beside not in known:
                known[beside] = transcripts(beside)
            if file.stem not in known[beside]:
                raise DataError(f"{file}: no line of its own in {beside.name}")
            yield file, known[beside][file.stem]


def transcripts(path: Path) -> dict[str, str]:
    """Utterances and words from lines of an identifier, a space and the words.

    Raises:
        DataError: the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing; it holds the words of the audio beside it")
    lines = (line.strip().partition(" ") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: words.strip() for name, _, words in lines if name}
