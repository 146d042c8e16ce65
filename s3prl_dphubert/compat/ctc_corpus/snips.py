"""Audio SNIPS: ``SPLIT/SPEAKER-….wav`` and one file of words and slots for all splits."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from .buckets import Buckets, Utterance, audio_files, by_length
from .librispeech import transcripts

SLOTS, WORDS = "all.iob.snips.txt", "all-trans.txt"


class SnipsDataset(Buckets):
    """Audio SNIPS with characters or words as tokens, and slots if the tokenizer has them.

    Args:
        split: names of the splits; ``<split>_speakers`` of the first one applies to all.
        tokenizer: s3prl's text encoder.
        bucket_size: see :class:`Buckets`.
        path: root folder of the corpus.
        ascending: order by length, shortest first.
        **corpus: other keys of the corpus configuration, of which the speakers are used.

    Raises:
        DataError: a split has no audio of its speakers, a file is missing, or a slot is unknown.
    """

    def __init__(
        self, split: Iterable[str], tokenizer, bucket_size: int, path: str, ascending: bool = False, **corpus
    ) -> None:
        splits = [split] if isinstance(split, str) else list(split)
        speakers = corpus.get(f"{splits[0]}_speakers")
        if not speakers:
            raise DataError(f"corpus.{splits[0]}_speakers is missing or empty, allowed: a list of speakers")
        texts = transcripts(Path(path, SLOTS if "-slot" in tokenizer.token_type else WORDS))
        pairs = [
            pair for name in splits for pair in _utterances(path, name, tuple(speakers), texts, tokenizer)
        ]
        super().__init__(by_length(pairs, ascending), bucket_size)


def _utterances(
    root: str, split: str, speakers: tuple[str, ...], texts: dict[str, str], tokenizer
) -> list[Utterance]:
    files = audio_files(root, split, ".wav")
    labelled = [file for file in files if file.stem in texts]
    missing = len(files) - len(labelled)
    if missing:
        print(f"[Snips] {split}: {missing} of {len(files)} files have no text", file=sys.stderr)
    spoken = [file for file in labelled if file.stem.startswith(speakers)]
    if not spoken:
        raise DataError(
            f"{Path(root, split)}: none of {len(labelled)} files with text is by one of {', '.join(speakers)}"
        )
    return [(file, _encode(tokenizer, file, texts[file.stem])) for file in spoken]


def _encode(tokenizer, file: Path, text: str) -> list[int]:
    try:
        return tokenizer.encode(text)
    except KeyError as error:
        slot = str(error.args[0]).removeprefix("B-")
        raise DataError(f"{file.stem}: slot {slot} is not in text.slots_file") from error
    except ValueError as error:
        raise DataError(f"{file.stem}: its line has no tab between words and slots") from error
