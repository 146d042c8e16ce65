"""Bounded readers of text, JSON, YAML, tables and zip archives.

Files come from other people, or from a machine that lost power while it wrote them. What is read here is
bounded in size, depth and number of values before anything is built of it, and whatever damage provokes is
one error of this package that names the file.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import DataError, DPHubertError, shown

LARGEST_JSON = 1 << 22  # bytes; a config.json has some kB, the index of a large model's files 100 kB
LARGEST_RECORD = 1 << 28  # bytes of a JSON file that this package writes about a corpus
LARGEST_YAML, MOST_VALUES = 1 << 18, 100_000  # bytes; values with aliases written out
LARGEST_TEXT, LONGEST_LINE, MOST_LINES = 1 << 30, 1 << 20, 5_000_000  # characters, characters, lines
DEEPEST = 100  # levels of nesting
_NUMBER = re.compile(
    r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE
)


@contextmanager
def reading(path: Path | str, error: type[DPHubertError], kind: str) -> Iterator[None]:
    """Turn whatever the content of a file provokes into an error that names the file.

    Args:
        path: file that is read, for the message.
        error: class of the error.
        kind: the file is expected to be, such as ``JSON``.
    """
    try:
        yield
    except DPHubertError:
        raise
    except FileNotFoundError as cause:
        raise error(f"{path}: no such file") from cause
    except Exception as cause:  # values of other types and sizes provoke errors of any class
        if isinstance(cause, OSError) and cause.errno is not None:  # of the system, not of a library's own
            raise error(f"{path}: cannot be read ({cause.strerror or cause})") from cause
        raise error(f"{path}: not readable as {kind} ({_reason(cause)})") from cause


def _reason(error: Exception) -> str:
    text = str(error)[:200]
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, KeyError):
        return f"has no {text}"
    return text if type(error) is ValueError and text else f"{type(error).__name__}: {text}".rstrip(": ")


def read_limited(path: Path, limit: int) -> bytes:
    """Return the content of a file of at most ``limit`` bytes.

    Raises:
        ValueError: it is larger.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit:,} bytes")
    return data


def parse_json(text: str | bytes) -> Any:
    """Return the values of a JSON text.

    Raises:
        ValueError: it is not JSON or not UTF-8, nested too deep, or has a number of too many digits.
    """
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    level: list[dict[Any, Any] | list[Any]] = [[values]]  # a text may also be a single number or null
    for _ in range(DEEPEST + 1):
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [value for part in inner for value in part if isinstance(value, dict | list)]
        if not level:
            return values
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def read_json(
    path: Path, error: type[DPHubertError], *, source: str = "", largest: int = LARGEST_JSON
) -> dict[str, Any]:
    """Read a mapping from a JSON file.

    Args:
        path: of the file.
        error: class of the error.
        source: name of the whole that the file belongs to, for messages, which name the path by default.
        largest: bytes that it may have.

    Raises:
        DPHubertError: an ``error``: the file is missing, too large, no JSON or holds no mapping.
    """
    place = f"{source}: {path.name}" if source else str(path)
    with reading(place, error, "JSON"):
        values = parse_json(read_limited(path, largest))
    if not isinstance(values, dict):
        raise error(f"{place}: holds {type(values).__name__}, expected a mapping")
    return values


def read_record(path: Path) -> dict[str, Any]:
    """Read a record of earlier work; it is empty if the file is missing, damaged or holds no mapping."""
    try:
        values = parse_json(read_limited(path, LARGEST_RECORD))
    except (OSError, ValueError, MemoryError):
        return {}
    return values if isinstance(values, dict) else {}


def section(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the mapping under a name of a record; it is empty if there is none, or something else."""
    values = record.get(name)
    return values if isinstance(values, dict) else {}


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the mappings of a log of JSON lines; those that are damaged, as by a power cut, are left out.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf8", errors="replace", newline="\n") as file:
        for line in _lines(file):
            try:
                values = parse_json(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                yield values


def parse_yaml(text: str | bytes) -> Any:
    """Return the plain values of a YAML text.

    Raises:
        ValueError: it is not YAML, nested too deep, or small but huge when its aliases are written out.
    """
    import yaml  # not at the top: much that imports this module reads no YAML

    class Loader(yaml.SafeLoader):
        """Count the values, those behind an alias each time."""

        count = depth = 0

        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            self.sizes: dict[int, int] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            begin, is_alias = self.count, self.check_event(yaml.AliasEvent)
            self.depth += 1
            if self.depth > DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST} levels")
            node = super().compose_node(parent, index)
            self.depth -= 1
            if is_alias:  # without a size, the node holds itself
                self.count += self.sizes.get(id(node), MOST_VALUES)
            else:
                self.count += 1
                self.sizes[id(node)] = self.count - begin
            if self.count > MOST_VALUES:
                raise ValueError(f"more than {MOST_VALUES:,} values, or one that holds itself")
            return node

    try:
        return yaml.load(text, Loader)  # a subclass of SafeLoader
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except Exception as error:  # beside its own errors, those of the types that a tag names
        raise ValueError(str(error)) from error


def parse_number(text: str) -> float:
    """Return a decimal number as C and every other language writes it.

    Raises:
        ValueError: it is another one, also one that only Python reads: ``1_0``, digits of other scripts.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{shown(text)} is no decimal number")
    return float(text)


def read_lines(path: Path, error: type[DPHubertError] = DataError) -> list[str]:
    r"""Return the lines of a UTF-8 text that are not blank, without their ends, which are ``\n`` or ``\r\n``.

    Raises:
        DPHubertError: an ``error``: the file is missing, not UTF-8 or too large.
    """
    with reading(path, error, "text"), path.open(encoding="utf8", newline="\n") as file:
        return [line.rstrip("\r\n") for line in _lines(file) if line.strip()]


def read_words(
    path: Path, least: int, error: type[DPHubertError] = DataError, *, most: int | None = None
) -> list[list[str]]:
    """Return the words of each line of a list that are separated by white space.

    Args:
        path: of the list.
        least: words that a line must have.
        error: class of the error.
        most: words of a line, of which the last may then contain white space.

    Raises:
        DPHubertError: an ``error``: as for :func:`read_lines`, or a line has fewer words.
    """
    rows = []
    for line in read_lines(path, error):
        words = line.split(maxsplit=-1 if most is None else most - 1)
        if len(words) < least:
            raise error(f"{path}: {shown(line)} has {len(words)} words, expected {least} or more")
        rows.append(words)
    return rows


def read_table(
    path: Path,
    columns: Collection[str],
    error: type[DPHubertError] = DataError,
    *,
    separator: str = "\t",
    quoted: bool = False,
) -> Iterator[dict[str, str]]:
    r"""Yield the rows of a table with a header; a name that ends in ``.gz`` is unpacked.

    Args:
        path: of the table.
        columns: names that the header must have, and a cell of which each row must have.
        error: class of the error.
        separator: between cells.
        quoted: whether cells may be quoted, as in CSV; otherwise only ``\n`` ends a row.

    Raises:
        DPHubertError: an ``error``: the table is missing, damaged or too large, or lacks a column.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with (
        reading(path, error, "a table"),
        opened(path, "rt", encoding="utf8", newline="" if quoted else "\n") as file,
    ):
        rows: Iterator[list[str]] = (
            csv.reader(_lines(file), delimiter=separator)
            if quoted
            else (line.rstrip("\r\n").split(separator) for line in _lines(file))
        )
        header = next(rows, [])
        if missing := [name for name in columns if name not in header]:
            raise error(f"{path}: has no column {', '.join(missing)}")
        needed = max((header.index(name) + 1 for name in columns), default=0)
        for number, cells in enumerate(rows, start=2):
            if not any(cells):
                continue
            if len(cells) < needed:
                raise error(f"{path}: row {number} has {len(cells)} cells, expected {len(header)}")
            cells += [""] * (len(header) - len(cells))
            yield dict(zip(header, cells, strict=False))


def _lines(file: IO[str]) -> Iterator[str]:
    """Yield the lines of an open text, which is never read beyond the bounds.

    Raises:
        ValueError: there are too many lines or characters.
    """
    characters = 0
    for number in range(1, MOST_LINES + 2):
        line = file.readline(LONGEST_LINE + 1)
        if not line:
            return
        characters += len(line)
        if number > MOST_LINES or characters > LARGEST_TEXT:
            raise ValueError(f"more than {MOST_LINES:,} lines or {LARGEST_TEXT:,} characters")
        if len(line) > LONGEST_LINE:
            raise ValueError(f"line {number} has more than {LONGEST_LINE:,} characters")
        yield line


@contextmanager
def open_zip(
    source: Path | IO[bytes], error: type[DPHubertError], name: str = ""
) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive to read it; damage that shows while it is open is an ``error`` too.

    Args:
        source: path, or file that is open.
        error: class of the error.
        name: of the archive, for messages; its path by default.
    """
    with reading(name or str(source), error, "zip"), zipfile.ZipFile(source) as archive:
        yield archive


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive that was written to its end, where its index is."""
    try:
        return zipfile.is_zipfile(path)
    except (OSError, ValueError):
        return False
