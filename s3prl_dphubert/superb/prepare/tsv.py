"""Tables of Common Voice and its kin: a header and a line a clip, columns between tabs, nothing quoted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError


def rows(
    path: Path, columns: tuple[str, ...], source: str, escaped: bool = False
) -> Iterator[dict[str, str]]:
    """The lines of a table by the names in its header.

    Only a line feed ends a line: sentences hold other signs that Python's ``splitlines`` ends lines at.

    Args:
        path: of the table.
        columns: that must be there.
        source: where to get it.
        escaped: whether a backslash quotes the next sign.

    Raises:
        DataError: it is missing, no UTF-8, or lacks a column.
    """
    try:
        with path.open(encoding="utf8", newline="\n") as file:
            header = next(file, "").rstrip("\r\n").split("\t")
            if missing := [name for name in columns if name not in header]:
                raise DataError(f"{path}: has no column {', '.join(missing)}; get it from {source}")
            for line in file:
                if not line.strip():
                    continue
                cells = line.rstrip("\r\n").split("\t")
                if escaped:
                    cells = [re.sub(r"\\(.)", r"\1", cell) for cell in cells]
                if len(cells) < len(header):
                    cells += [""] * (len(header) - len(cells))
                yield dict(zip(header, cells, strict=False))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; get it from {source}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
