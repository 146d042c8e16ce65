"""Where a configuration says that a corpus is, and what to say when it is not there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import DataError
from .step import Config


def value(config: Config, *keys: str) -> Any:
    """A value of ``downstream_expert``, by its keys.

    Raises:
        DataError: the configuration has no such key.
    """
    found: Any = config.get("downstream_expert", {})
    for key in keys:
        if not hasattr(found, "get") or found.get(key) is None:
            raise DataError(f"downstream_expert.{'.'.join(keys)} is missing, allowed: a place of the corpus")
        found = found[key]
    return found


def folder(path: Path, what: str, source: str) -> Path:
    """The folder, if it is there.

    Args:
        path: where it should be.
        what: the corpus or part that it holds.
        source: where to get it.

    Raises:
        DataError: it is not there.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; it holds {what}, from {source}")
    return path


def text(path: Path, what: str, source: str) -> list[str]:
    """The lines of a file that are not empty.

    Raises:
        DataError: it is missing, no UTF-8 or has no lines.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; it holds {what}, from {source}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not lines:
        raise DataError(f"{path}: is empty; it holds {what}, from {source}")
    return lines


def present(paths: Iterable[Path], what: str, source: str) -> None:
    """Check that files are there.

    Raises:
        DataError: naming the first of those that are not, and how many there are.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{more}: no such file; {what}, from {source}")
