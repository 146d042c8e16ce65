"""Common Voice and SBCSAE: tables of audio files and sentences."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from .buckets import Buckets, Utterance


class CommonVoiceDataset(Buckets):
    """Sentences of tab-separated tables with a header, in the order of the tables.

    Args:
        split: tables; column 1 is a path below ``path``, column 2 the sentence.
        tokenizer: s3prl's text encoder.
        bucket_size: see :class:`Buckets`.
        path: folder of the audio.
        ratio: of the utterances to use.
        offset: first utterance to use, where ``ratio`` is below 1.
        **_: further keys of the corpus's configuration, not needed here.

    Raises:
        DataError: a table is missing, has no utterances, or has a line of one column.
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
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in list(csv.reader(file, delimiter="\t"))[1:] if row]
    short = next((row for row in rows if len(row) < 2), None)
    if short or not rows:
        raise DataError(
            f"{table}: {short or 'no line below the header'}, allowed: a path, a tab and a sentence"
        )
    return [(root / name, tokenizer.encode(sentence)) for name, sentence, *_ in rows]
