"""Files and folders that appear complete or not at all, JSON files, and the user's cache folder."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

CACHE = "S3PRL_DPHUBERT_CACHE"
"""Environment variable that names the user's cache folder of this package."""


def user_cache_dir() -> Path:
    """Return this package's cache folder: ``$S3PRL_DPHUBERT_CACHE``, or one in the user's cache."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3prl-dphubert"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which becomes ``path`` when the block ends without error.

    Paths that exist but are not regular files, such as ``/dev/stdout``, are written directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, which appears complete or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf8")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which becomes ``path`` when the block ends without error.

    Raises:
        CheckpointError: ``path`` exists already, or cannot be written.
    """
    if path.exists():
        raise CheckpointError(f"{path}: exists already; choose another place or remove it first")
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern below a folder, sorted, without hidden names such as ``._a.wav``."""
    paths = (path for path in folder.glob(pattern) if not is_hidden(path.relative_to(folder)))
    return sorted(paths)


def is_hidden(path: Path) -> bool:
    """Return whether a name on a path begins with a dot, as in the files that macOS leaves beside others."""
    return any(part.startswith(".") for part in path.parts)


def remove_partial(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left anywhere below a folder."""
    for partial in list(folder.rglob("*.part")):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """Read a mapping from a JSON file; it is empty if the file is missing, damaged or holds no mapping."""
    try:
        values = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
