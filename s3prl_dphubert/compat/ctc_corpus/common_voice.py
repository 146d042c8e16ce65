"""Corpora listed in tables of audio files and sentences: Common Voice and SBCSAE."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...utils.readers import read_table
from .buckets import Buckets, Utterance


class CommonVoiceDataset(Buckets):
    """Sentences of tab-separated tables with a header, in the order of the tables.

    Args:
        split: paths of the tables; column 1 is a file below ``path``, column 2 the sentence.
        tokenizer: s3prl's text encoder.
        bucket_size: see :class:`Buckets`.
        path: folder of the audio files.
        ratio: share of the utterances to use.
        offset: index of the first utterance to use if ``ratio`` is below 1.
        **_: other keys of the corpus configuration, ignored.

    Raises:
        DataError: a table is missing, has no utterances, or has a line with one column.
    """

    def __init__(
        self,
        split: Iterable[str],
        tokenizer,
        bucket_size: int,
        path: str,
        ratio: float = 1.0,
        offset: int = 0,
        **_,
    ) -> None:
        pairs = [pair for table in split for pair in _utterances(Path(table), Path(path), tokenizer)]
        if ratio < 1:
            pairs = pairs[offset :: int(1 / ratio)]
        super().__init__(pairs, bucket_size)


def _utterances(table: Path, root: Path, tokenizer) -> list[Utterance]:
    if not table.is_file():
        raise DataError(f"{table}: missing; the splits of this corpus are paths of tables")
    header = list(next(read_table(table, ()), {}))  # its names are free, its first two cells are needed
    rows = [list(row.values()) for row in read_table(table, header[:2])]
    short = next((row for row in rows if len(row) < 2), None)
    if short or not rows:
        raise DataError(
            f"{table}: {short or 'no line below the header'}, allowed: a path, a tab and a sentence"
        )
    return [(root / name, tokenizer.encode(sentence)) for name, sentence, *_ in rows]
