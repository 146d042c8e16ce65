"""QUESST 2014: whether what its lists name is there; s3prl reads the corpus as it is."""

from __future__ import annotations

from pathlib import Path

from ...errors import DataError
from .paths import folder, present, text, value
from .step import Config, Step

SOURCE = "https://speech.fit.vutbr.cz/files/quesst14Database.tgz"
LISTS_OF = ("utterances", "dev", "eval")
LANGUAGE = "nnenglish"  # the only one that SUPERB uses


def lists(data: Path, out: Path, config: Config) -> None:
    """Check that all audio in English is there. Nothing is written.

    A line is ``FOLDER/PATH LANGUAGE``, with PATH below the corpus's root.
    """
    root = folder(Path(value(config, "datarc", "dataset_root")), "QUESST 2014", SOURCE)
    for name in LISTS_OF:
        table = root / "scoring" / f"language_key_{name}.lst"
        rows = [line.split() for line in text(table, "languages of QUESST 2014", SOURCE)]
        if bad := [row for row in rows if len(row) != 2]:
            raise DataError(f"{table}: {' '.join(bad[0])[:80]!r} is no path and language")
        paths = [root / path.partition("/")[2] for path, language in rows if language == LANGUAGE]
        if not paths:
            raise DataError(f"{table}: lists nothing in {LANGUAGE}")
        present(paths, f"{table} lists it", SOURCE)


def _inputs(data: Path, config: Config) -> list[Path]:
    root = Path(value(config, "datarc", "dataset_root"))
    return [root, *(root / "scoring" / f"language_key_{name}.lst" for name in LISTS_OF)]


LISTS = Step("quesst_lists", lists, _inputs)
