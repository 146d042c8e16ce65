"""Bytes of files that lie on this machine or behind a URL, whole or a part of them."""

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
    """Whether a path is ``scheme://…`` and not a name on this machine."""
    return URL.match(path) is not None


@contextmanager
def readable(name: str | Path) -> Iterator[None]:
    """Turn whatever a damaged or missing file provokes into a :class:`DataError` that names it.

    Storage drivers raise errors of their own libraries, and decoders nearly any, so the net is wide.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: unreadable ({_reason(error)})") from error


def fetch(path: str, start: int = 0, size: int | None = None) -> bytes:
    """Bytes of a file from ``start`` on, ``size`` of them or fewer where it ends; one request.

    Nothing stays open, so a process may fork at any time between two calls.
    """
    if is_url(path):
        files, inner = url_to_fs(path)
        return files.cat_file(inner, start=start, end=None if size is None else start + size)
    with open(path, "rb") as file:
        # A damaged manifest may ask for more than memory holds.
        left = max(os.fstat(file.fileno()).st_size - start, 0)
        file.seek(start)
        return file.read(left if size is None else min(size, left))


def opened(path: str) -> IO[bytes]:
    """Open a file for reading from front to back, with seeking."""
    if is_url(path):
        files, inner = url_to_fs(path)
        return files.open(inner, "rb")
    return open(path, "rb")


def length(path: str) -> int:
    """Bytes that a file has."""
    if is_url(path):
        files, inner = url_to_fs(path)
        return int(files.size(inner))
    return os.path.getsize(path)


def listing(url: str) -> list[str]:
    """URLs of the files that a URL stands for: one file, all below a folder, or all that match a glob."""
    files, inner = url_to_fs(url)
    found: Any = [inner]
    if MAGIC.search(inner):
        found = files.glob(inner)
    elif files.isdir(inner):
        found = files.find(inner)
    return [files.unstrip_protocol(name) for name in found]


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error).strip() else type(error).__name__
