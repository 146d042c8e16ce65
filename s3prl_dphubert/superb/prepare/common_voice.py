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
from .audio16k import convert
from .paths import folder
from .step import Config, Step
from .tsv import rows

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
    """A sentence in capitals without signs; nothing where it has letters of another language."""
    said = unicodedata.normalize("NFKC", sentence).upper().translate(_SIGNS)
    said = re.sub(" +", "" if language in UNSPACED else " ", said)
    latin = language in NO_LATIN and any(sign == "'" or (sign.isascii() and sign.isalpha()) for sign in said)
    return "" if latin or set(FOREIGN.get(language, "")) & set(said) else said.strip()


def table(part: str) -> Step:
    """The step of a language: ``common_voice_PART/{train,dev,test}.tsv``, ``letters.txt``, ``clips``."""
    language = LANGUAGES[part]

    def make(data: Path, out: Path, config: Config) -> None:
        root = folder(data / CORPUS / language, f"Common Voice 7 in {language}", SOURCE)
        made = out / f"common_voice_{part}"
        letters: set[str] = set()
        for split in SPLITS:
            said = list(_rows(root / f"{split}.tsv", language))
            if not said:
                raise DataError(f"{root / f'{split}.tsv'}: no sentence can be used; take it from {SOURCE}")
            names = [f"{Path(clip).stem}.wav" for clip, _ in said]
            pairs = zip((root / "clips" / clip for clip, _ in said), names, strict=True)
            convert(((clip, made / "clips" / name) for clip, name in pairs), f"{language} {split}")
            order = sorted(zip(names, said, strict=True), key=lambda row: -_size(made / "clips" / row[0]))
            lines = [f"{name}\t{sentence}" for name, (_, sentence) in order]
            write_text(made / f"{split}.tsv", "\n".join(["path\tsentence", *lines]) + "\n")
            if split == "train":
                letters = {sign for _, sentence in said for sign in sentence}
        write_text(made / "letters.txt", "".join(f"{sign}\n" for sign in sorted(letters)))

    return Step(f"common_voice_{part}", make, lambda data, config: _inputs(data, language))


def _rows(path: Path, language: str) -> Iterable[tuple[str, str]]:
    """Clip and normalized sentence of the lines of a table that can be used."""
    for row in rows(path, ("path", "sentence"), SOURCE):
        accent = row.get("accent") or row.get("accents") or ""
        if language in ACCENTS and accent != ACCENTS[language]:
            continue
        if said := normalized(row["sentence"], language):
            yield row["path"], said


def _size(path: Path) -> int:
    return path.stat().st_size


def _inputs(data: Path, language: str) -> Iterable[Path]:
    root = data / CORPUS / language
    return [root, root / "clips", *(root / f"{split}.tsv" for split in SPLITS)]


STEPS = tuple(table(part) for part in LANGUAGES)
