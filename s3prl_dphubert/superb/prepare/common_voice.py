"""Common Voice 7: sentences in capitals without punctuation, audio of 16 kHz, and the letters of a language.

The rules are those of the SUPERB-SG paper's out-of-domain recognition as s3prl writes them down: which
signs are dropped, which sentences are left out because of letters of other languages, and that Spanish
is that of Mexico.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...utils.files import write_text
from .corpus_files import convert_audio, read_table, require_folder
from .step import Config, PreparationStep

SOURCE = "https://commonvoice.mozilla.org/datasets (Common Voice Corpus 7.0)"
CORPUS = "cv-corpus-7.0-2021-07-21"  # below the folder of data
LANGUAGES = {"es": "es", "ar": "ar", "zh": "zh-CN"}  # part of the task -> folder of the corpus
SPLITS = ("train", "dev", "test")
ACCENTS = {"es": "mexicano"}
FOREIGN = {"es": "しらゴミムラ消箱良", "zh-CN": "ΜИТオカドヤ䴕"}
UNSPACED = ("zh-CN",)
NO_LATIN = ("zh-CN", "ar")
DROPPED = string.punctuation.replace("'", "") + "「」、⋯。《》丶–—―‘“”『』〜ー・☭«»،؛؟‐−¡¿ː́·×̃̌─〈〉"
_SIGNS = str.maketrans(DROPPED + "’ㄧ", " " * len(DROPPED) + "'一")


def normalized(sentence: str, language: str) -> str:
    """Return a sentence in capitals without punctuation, empty if it has letters of another language."""
    text = unicodedata.normalize("NFKC", sentence).upper().translate(_SIGNS)
    text = re.sub(" +", "" if language in UNSPACED else " ", text)
    latin = language in NO_LATIN and any(sign == "'" or (sign.isascii() and sign.isalpha()) for sign in text)
    return "" if latin or set(FOREIGN.get(language, "")) & set(text) else text.strip()


def table(part: str) -> PreparationStep:
    """Return the step of a language, which makes the folder ``common_voice_PART``.

    It holds ``{train,dev,test}.tsv``, ``letters.txt`` and ``clips``.
    """
    language = LANGUAGES[part]

    def make(data: Path, out: Path, config: Config) -> None:
        root = require_folder(data / CORPUS / language, f"Common Voice 7 in {language}", SOURCE)
        made = out / f"common_voice_{part}"
        letters: set[str] = set()
        for split in SPLITS:
            rows = list(_usable_rows(root / f"{split}.tsv", language))
            if not rows:
                raise DataError(f"{root / f'{split}.tsv'}: no sentence can be used; take it from {SOURCE}")
            names = [f"{Path(clip).stem}.wav" for clip, _ in rows]
            pairs = zip((root / "clips" / clip for clip, _ in rows), names, strict=True)
            convert_audio(((clip, made / "clips" / name) for clip, name in pairs), f"{language} {split}")
            order = sorted(
                zip(names, rows, strict=True),
                key=lambda pair: -(made / "clips" / pair[0]).stat().st_size,
            )
            lines = [f"{name}\t{sentence}" for name, (_, sentence) in order]
            write_text(made / f"{split}.tsv", "\n".join(["path\tsentence", *lines]) + "\n")
            if split == "train":
                letters = {sign for _, sentence in rows for sign in sentence}
        write_text(made / "letters.txt", "".join(f"{sign}\n" for sign in sorted(letters)))

    return PreparationStep(f"common_voice_{part}", make, lambda data, config: _inputs(data, language))


def _usable_rows(path: Path, language: str) -> Iterable[tuple[str, str]]:
    """Yield clip and normalized sentence of the usable rows of a table."""
    for row in read_table(path, ("path", "sentence"), SOURCE):
        accent = row.get("accent") or row.get("accents") or ""
        if language in ACCENTS and accent != ACCENTS[language]:
            continue
        if sentence := normalized(row["sentence"], language):
            yield row["path"], sentence


def _inputs(data: Path, language: str) -> Iterable[Path]:
    root = data / CORPUS / language
    return [root, root / "clips", *(root / f"{split}.tsv" for split in SPLITS)]


STEPS = tuple(table(part) for part in LANGUAGES)
