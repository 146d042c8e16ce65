"""QUESST 2014: a check that the audio of its lists is there; s3prl reads the corpus as it is."""

from __future__ import annotations

from pathlib import Path

from ...errors import DataError
from .corpus_files import config_value, read_pairs, require_files, require_folder
from .step import Config, PreparationStep

SOURCE = "https://speech.fit.vutbr.cz/files/quesst14Database.tgz"
LISTS_OF = ("utterances", "dev", "eval")
LANGUAGE = "nnenglish"  # the only one that SUPERB uses


def lists(data: Path, out: Path, config: Config) -> None:
    """Check that all audio in English is there; nothing is written.

    A line of a list is ``FOLDER/PATH LANGUAGE``, with PATH below the root of the corpus.
    """
    root = require_folder(Path(config_value(config, "datarc", "dataset_root")), "QUESST 2014", SOURCE)
    for name in LISTS_OF:
        table = root / "scoring" / f"language_key_{name}.lst"
        rows = read_pairs(table, "languages of QUESST 2014", SOURCE, "path and language")
        paths = [root / path.partition("/")[2] for path, language in rows if language == LANGUAGE]
        if not paths:
            raise DataError(f"{table}: lists nothing in {LANGUAGE}")
        require_files(paths, f"{table} lists it", SOURCE)


def _inputs(data: Path, config: Config) -> list[Path]:
    root = Path(config_value(config, "datarc", "dataset_root"))
    return [root, *(root / "scoring" / f"language_key_{name}.lst" for name in LISTS_OF)]


LISTS = PreparationStep("quesst_lists", lists, _inputs, quick=True)
