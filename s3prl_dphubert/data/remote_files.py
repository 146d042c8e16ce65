"""Local and remote files by path or URL, read whole or in part."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs

from ..errors import DataError

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
LOCAL = re.compile(r"(file|local)://", re.IGNORECASE)
MAGIC = re.compile(r"[*?\[]")
MAX_BYTES = 2**29  # that are read at once: 4.6 h of 16-bit WAV; a device such as /dev/zero never ends


def is_url(path: str) -> bool:
    """Return whether a path is a URL (``scheme://…``) rather than a local path."""
    return URL.match(path) is not None


def local_path(path: str) -> str | None:
    """Return the local path of a path or a ``file://`` URL; ``None`` for other URLs."""
    if match := LOCAL.match(path):
        return path[match.end() :]
    return None if is_url(path) else path


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

    Raises:
        DataError: it is more than :data:`MAX_BYTES`, or no regular file.
    """
    local = local_path(path)
    if local is not None:
        # A damaged manifest may ask for more bytes than there are.
        left = max(length(path) - start, 0)
        size = left if size is None else min(size, left)
    if (size or 0) > MAX_BYTES:
        raise _too_large(path, size)
    if local is None:
        files, inner = url_to_fs(path)
        data = files.cat_file(inner, start=start, end=start + (MAX_BYTES + 1 if size is None else size))
        if len(data) > MAX_BYTES:
            raise _too_large(path, None)
        return data
    with open(local, "rb") as file:
        file.seek(start)
        return file.read(size)


def _too_large(path: str, size: int | None) -> DataError:
    amount = f"{size} bytes" if size else "more"
    return DataError(f"{path}: too large ({amount}), allowed: {MAX_BYTES} bytes at once")


def opened(path: str) -> IO[bytes]:
    """Open a file for sequential reading; it can seek.

    Raises:
        DataError: it is no regular file.
    """
    local = local_path(path)
    if local is None:
        files, inner = url_to_fs(path)
        return files.open(inner, "rb")
    length(path)  # refuses named pipes and devices
    return open(local, "rb")


def length(path: str) -> int:
    """Return the size of a file in bytes.

    Raises:
        DataError: it is no regular file; a named pipe would wait for ever, a device never end.
    """
    local = local_path(path)
    if local is None:
        files, inner = url_to_fs(path)
        return int(files.size(inner))
    status = os.stat(local)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: unreadable (not a regular file)")
    return status.st_size


def listing(url: str) -> list[str]:
    """List the URLs of a file, of all files below a folder, or of all that match a glob."""
    files, inner = url_to_fs(url)
    names: Any = [inner]
    if MAGIC.search(inner):
        names = files.glob(inner)
    elif files.isdir(inner):
        names = files.find(inner)
    return [files.unstrip_protocol(name) for name in names]
