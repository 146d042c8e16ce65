"""LibriSpeech as sequences of phones, looked up in a lexicon."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from .buckets import Buckets, by_length
from .librispeech import transcribed

SHOWN = 10  # words that an error message lists


class LibriPhoneDataset(Buckets):
    """LibriSpeech with phones as tokens, shortest utterance last unless ``ascending``.

    Args:
        split: names of the splits.
        tokenizer: s3prl's word encoder, whose words are the phones.
        bucket_size: see :class:`Buckets`.
        path: root folder of LibriSpeech.
        lexicon: files with a word and its phones per line; the first pronunciation of a word counts.
        ascending: order by length, shortest first.
        **_: other keys of the corpus configuration, ignored.

    Raises:
        DataError: a split is empty, an utterance has no transcript, a word is not in the lexicon or a
            phone not in the vocabulary.
    """

    def __init__(
        self,
        split: Iterable[str],
        tokenizer,
        bucket_size: int,
        path: str,
        lexicon: Iterable[str],
        ascending: bool = False,
        **_,
    ) -> None:
        lexicon = [lexicon] if isinstance(lexicon, str) else list(lexicon)
        phones = pronunciations(lexicon, set(tokenizer._vocab2idx))
        transcripts = [(file, text.split()) for file, text in transcribed(path, split)]
        unknown = sorted({word for _, words in transcripts for word in words} - phones.keys())
        if unknown:
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            raise DataError(
                f"words of {', '.join(split)} are in none of {', '.join(lexicon)}: "
                f"{' '.join(unknown[:SHOWN])}{more}; add their pronunciations to corpus.lexicon"
            )
        pairs = (
            (file, tokenizer.encode(" ".join(phone for word in words for phone in phones[word])))
            for file, words in transcripts
        )
        super().__init__(by_length(pairs, ascending), bucket_size)


def pronunciations(files: Iterable[str], vocabulary: set[str]) -> dict[str, list[str]]:
    """Return the first pronunciation of each word.

    Raises:
        DataError: a file is missing, or a phone is not in the vocabulary.
    """
    phones: dict[str, list[str]] = {}
    for file in files:
        if not Path(file).is_file():
            raise DataError(f"corpus.lexicon names {file}, which does not exist")
        for number, line in enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1):
            word, *sequence = line.split() or [""]
            foreign = sorted(set(sequence) - vocabulary)
            if foreign:
                raise DataError(
                    f"{file}:{number}: phones {' '.join(foreign)} of {word} are not in the vocabulary"
                )
            if word:
                phones.setdefault(word, sequence)
    return phones
