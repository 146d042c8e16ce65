"""LibriSpeech: ``SPLIT/SPEAKER/CHAPTER/*.flac`` beside ``SPEAKER-CHAPTER.trans.txt``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import DataError
from .buckets import Buckets, audio_files, by_length


class LibriDataset(Buckets):
    """LibriSpeech with characters or words as tokens.

    Args:
        split: names of the splits.
        tokenizer: s3prl's text encoder.
        bucket_size: see :class:`Buckets`.
        path: root folder of LibriSpeech.
        ascending: order by length, shortest first.
        **_: other keys of the corpus configuration, ignored.

    Raises:
        DataError: a split is empty or an utterance has no transcript.
    """

    def __init__(
        self, split: Iterable[str], tokenizer, bucket_size: int, path: str, ascending: bool = False, **_
    ) -> None:
        pairs = ((file, tokenizer.encode(text)) for file, text in transcribed(path, split))
        super().__init__(by_length(pairs, ascending), bucket_size)


def transcribed(root: str | Path, splits: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """Yield each utterance of the splits with its transcript.

    Raises:
        DataError: a split is empty or an utterance has no transcript.
    """
    chapters: dict[Path, dict[str, str]] = {}
    for split in splits:
        for file in audio_files(root, split, ".flac"):
            table = file.with_name(file.stem.rpartition("-")[0] + ".trans.txt")
            if table not in chapters:
                chapters[table] = transcripts(table)
            if file.stem not in chapters[table]:
                raise DataError(f"{file}: no line of its own in {table.name}")
            yield file, chapters[table][file.stem]


def transcripts(path: Path) -> dict[str, str]:
    """Read lines of an utterance's identifier, a space and its words; returns identifier -> words.

    Raises:
        DataError: the file is missing.
    """
    if not path.is_file():
        raise DataError(f"{path}: missing; it holds the words of the audio beside it")
    lines = (line.strip().partition(" ") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: words.strip() for name, _, words in lines if name}
