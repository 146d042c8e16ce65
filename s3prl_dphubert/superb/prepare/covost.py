"""CoVoST 2, English to German: tables, letters and a configuration as fairseq reads them.

The rules are s3prl's: which pairs are left out, how texts are normalized (by sacremoses), and that both
sides are letters of a SentencePiece model.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from ...data.audio import probe
from ...errors import DataError
from ...utils.files import write_text
from .corpus_files import read_table
from .step import Config, PreparationStep

COMMON_VOICE = "https://commonvoice.mozilla.org/datasets (Common Voice Corpus 4, English)"
COVOST = "https://dl.fbaipublicfiles.com/covost/covost_v2.en_de.tsv.tar.gz"
CORPUS, TABLE = "cv-corpus-4-2019-12-10/en", "covost_v2.en_de.tsv"  # below the folder of data
MADE = "covost_en_de"
SPLITS = {"train": ("train", "train_covost"), "dev": ("dev",), "test": ("test",)}
RATIO = 5  # of words of both sides, above which a pair is left out
COLUMNS = ("id", "audio", "n_frames", "sr", "src_text", "tgt_text")
DROPPED = frozenset(string.punctuation) - set("'-")
SPECIAL = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3}  # as fairseq numbers them

Row = dict[str, Any]


def tables(data: Path, out: Path, config: Config) -> None:
    """Write ``covost_en_de``: ``{train,dev,test}.tsv``, ``spm-{src,tgt}_text.*`` and ``config.yaml``."""
    made, final = out / MADE, out.parent.absolute() / MADE
    made.mkdir()
    pairs = list(_pairs(data))
    for split, labels in SPLITS.items():
        chosen = [row for row in pairs if row["split"] in labels]
        rows = sorted(_rows(chosen, data / CORPUS / "clips", split), key=lambda row: row["n_frames"])
        if not rows:
            raise DataError(f"{data / CORPUS / 'clips'}: holds no audio of {split}, from {COMMON_VOICE}")
        lines = ["\t".join(COLUMNS), *("\t".join(str(row[key]) for key in COLUMNS) for row in rows)]
        write_text(made / f"{split}.tsv", "\n".join(lines) + "\n")
        if split == "train":
            for side in ("src_text", "tgt_text"):
                write_letters([row[side] for row in rows], made / f"spm-{side}")
    values = {
        "bpe_tokenizer": {"bpe": "sentencepiece", "sentencepiece_model": str(final / "spm-tgt_text.model")},
        "vocab_filename": "spm-tgt_text.txt",
        "audio_root": str((data / CORPUS / "clips").absolute()),
        "use_audio_input": True,
    }
    write_text(made / "config.yaml", yaml.safe_dump(values))


def is_usable(source: str, target: str) -> bool:
    """Return whether both sides of a pair have words, neither far more than the other, and no REMOVE."""
    counts = sorted((len(source.split()), len(target.split())))
    return "REMOVE" not in source + target and counts[0] >= 1 and counts[1] <= RATIO * counts[0]


def normalizer(language: str) -> Callable[[str], str]:
    """Return Moses's normalization of punctuation, without spaces before signs that end or join words.

    Raises:
        DataError: sacremoses is not installed.
    """
    try:
        from sacremoses import MosesPunctNormalizer
    except ImportError as error:
        raise DataError(f"CoVoST 2 is normalized by sacremoses: pip install sacremoses ({error})") from error
    moses = MosesPunctNormalizer(
        lang=language, pre_replace_unicode_punct=True, post_remove_control_chars=True
    )

    def normalize(sentence: str) -> str:
        sentence = moses.normalize(sentence)
        for sign in ".?,'":
            sentence = sentence.replace(f" {sign}", sign)
        return sentence.replace("do n't", "don't")

    return normalize


def write_letters(sentences: Iterable[str], prefix: Path) -> None:
    """Write a SentencePiece model of single letters, and its vocabulary as fairseq's dictionary.

    Raises:
        DataError: sentencepiece is not installed.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise DataError(f"CoVoST 2 needs sentencepiece: pip install sentencepiece ({error})") from error
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(prefix),
        model_type="char",
        vocab_size=1000,
        character_coverage=1.0,
        minloglevel=2,
        **SPECIAL,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    pieces = [model.id_to_piece(index) for index in range(len(SPECIAL), model.get_piece_size())]
    write_text(prefix.with_suffix(".txt"), "".join(f"{piece} 1\n" for piece in pieces))


def _pairs(data: Path) -> Iterator[Row]:
    """Yield the sentences of Common Voice that CoVoST has a translation of."""
    clips = read_table(data / CORPUS / "validated.tsv", ("path", "sentence"), COMMON_VOICE, escaped=True)
    sentences = {row["path"]: row["sentence"] for row in clips}
    for row in read_table(data / TABLE, ("path", "translation", "split"), COVOST, escaped=True):
        if row["path"] in sentences:
            yield {**row, "sentence": sentences[row["path"]]}


def _rows(pairs: list[Row], clips: Path, split: str) -> Iterator[Row]:
    """Yield a row of fairseq's table for each usable pair whose audio is there."""
    english, german = normalizer("en"), normalizer("de")
    for row in tqdm(pairs, desc=f"CoVoST 2 {split}", unit="pair"):
        path = clips / row["path"]
        if not is_usable(row["sentence"], row["translation"]) or not path.is_file():
            continue
        info = probe(path)
        source = "".join(sign for sign in english(row["sentence"]) if sign not in DROPPED)
        yield {
            "id": row["path"].split(".")[0],
            "audio": row["path"],
            "n_frames": info.samples,
            "sr": info.rate,
            "src_text": " ".join(source.split()).lower(),
            "tgt_text": german(row["translation"]),
        }


def _inputs(data: Path, config: Config) -> Iterable[Path]:
    return [data / CORPUS, data / CORPUS / "clips", data / CORPUS / "validated.tsv", data / TABLE]


TABLES = PreparationStep("covost_en_de", tables, _inputs)
