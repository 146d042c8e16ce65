"""Local and remote files by path or URL, read whole or in part."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs

from ..errors import DataError

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
MAGIC = re.compile(r"[*?\[]")


def is_url(path: str) -> bool:
    """Return whether a path is a URL (``scheme://…``) rather than a local path."""
    return URL.match(path) is not None


@contextmanager
def readable(name: str | Path) -> Iterator[None]:
    """Turn any error of reading a file into a :class:`DataError` that names the file.

    Storage drivers raise errors of their own libraries and decoders nearly any, so all are caught.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{name}: unreadable ({reason})") from error


def fetch(path: str, start: int = 0, size: int | None = None) -> bytes:
    """Read bytes of a file in one request.

    No file stays open, so a process may fork at any time between two calls.

    Args:
        path: local path or URL.
        start: first byte.
        size: number of bytes, to the end by default.

    Returns:
        The bytes, fewer than ``size`` if the file ends early.
    """
    if is_url(path):
        files, inner = url_to_fs(path)
        return files.cat_file(inner, start=start, end=None if size is None else start + size)
    with open(path, "rb") as file:
        # A damaged manifest may ask for more bytes than fit into memory.
        left = max(os.fstat(file.fileno()).st_size - start, 0)
        file.seek(start)
        return file.read(left if size is None else min(size, left))


def opened(path: str) -> IO[bytes]:
    """Open a file for sequential reading; it can seek."""
    if is_url(path):
        files, inner = url_to_fs(path)
        return files.open(inner, "rb")
    return open(path, "rb")


def length(path: str) -> int:
    """Return the size of a file in bytes."""
    if is_url(path):
        files, inner = url_to_fs(path)
        return int(files.size(inner))
    return os.path.getsize(path)


def listing(url: str) -> list[str]:
    """List the URLs of a file, of all files below a folder, or of all that match a glob."""
    files, inner = url_to_fs(url)
    names: Any = [inner]
    if MAGIC.search(inner):
        names = files.glob(inner)
    elif files.isdir(inner):
        names = files.find(inner)
    return [files.unstrip_protocol(name) for name in names]
