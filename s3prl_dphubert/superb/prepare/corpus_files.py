"""Files of a corpus: find what a step of preparation needs, read its tables, convert its audio."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from ...constants import SAMPLE_RATE
from ...data.audio import read
from ...errors import DataError
from ...utils import readers
from .step import Config


def config_value(config: Config, *keys: str) -> Any:
    """Return a value of ``downstream_expert`` by its keys.

    Raises:
        DataError: the configuration has no such key.
    """
    value: Any = config.get("downstream_expert", {})
    for key in keys:
        if not hasattr(value, "get") or value.get(key) is None:
            raise DataError(f"downstream_expert.{'.'.join(keys)} is missing, allowed: a place of the corpus")
        value = value[key]
    return value


def require_folder(path: Path, what: str, source: str) -> Path:
    """Return the path of a folder, if it is there.

    Args:
        path: of the folder.
        what: the corpus or part that it holds.
        source: where to get it.

    Raises:
        DataError: there is no such folder.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; it holds {what}, from {source}")
    return path


def require_files(paths: Iterable[Path], what: str, source: str) -> None:
    """Check that files are there.

    Raises:
        DataError: naming the first that is missing, and the number of the others.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{more}: no such file; {what}, from {source}")


def read_lines(path: Path, what: str, source: str) -> list[str]:
    """Return the lines of a file that are not empty.

    Raises:
        DataError: the file is missing, not UTF-8 or has no lines.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; it holds {what}, from {source}")
    lines = readers.read_lines(path)
    if not lines:
        raise DataError(f"{path}: is empty; it holds {what}, from {source}")
    return lines


def read_pairs(path: Path, what: str, source: str, words: str) -> list[tuple[str, str]]:
    """Return the lines of a file that has two words in each.

    Args:
        path: of the file.
        what: the file holds.
        source: where to get it.
        words: names of the two, for the error message.

    Raises:
        DataError: as for :func:`read_lines`, or a line has another number of words.
    """
    rows = [line.split() for line in read_lines(path, what, source)]
    for row in rows:
        if len(row) != 2:
            raise DataError(f"{path}: {' '.join(row)[:80]!r} is no {words}")
    return [(first, second) for first, second in rows]


def read_table(
    path: Path, columns: tuple[str, ...], source: str, escaped: bool = False
) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of Common Voice or CoVoST: a header, tabs between columns, nothing quoted.

    Only a line feed ends a row: sentences contain other characters at which ``str.splitlines`` splits.

    Args:
        path: of the table.
        columns: required ones.
        source: where to get the table.
        escaped: a backslash quotes the character after it.

    Raises:
        DataError: the table is missing, not UTF-8, or lacks a column.
    """
    try:
        for row in readers.read_table(path, columns):
            if escaped:
                row = {name: re.sub(r"\\(.)", r"\1", cell) for name, cell in row.items()}
            yield row
    except DataError as error:
        raise DataError(f"{error}; get it from {source}") from error


def convert_audio(pairs: Iterable[tuple[Path, Path]], title: str) -> None:
    """Write audio as 16-bit WAV at 16 kHz, for tasks of s3prl that do not resample themselves.

    Args:
        pairs: source and target of each file; folders of the targets are made.
        title: of the progress bar.

    Raises:
        DataError: a file cannot be decoded.
    """

    def convert(pair: tuple[Path, Path]) -> None:
        source, target = pair
        soundfile.write(target, read(source), SAMPLE_RATE, subtype="PCM_16")

    pairs = list(pairs)
    for folder in {target.parent for _, target in pairs}:
        folder.mkdir(parents=True, exist_ok=True)
    # Threads will do: decoding and resampling release the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in tqdm(pool.map(convert, pairs), desc=title, total=len(pairs), unit="file"):
            pass
