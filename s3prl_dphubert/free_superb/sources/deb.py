"""Access to the files in a Debian package without installing or unpacking it."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError

HEADER = 60  # bytes before each member of an ar archive: name 16, date 12, ids 12, mode 8, size 10, end 2


def files(package: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of the regular files whose paths match, in the order of the package.

    Args:
        package: a ``.deb`` with content compressed by xz or gzip.
        pattern: regular expression, searched in paths such as ``/usr/share/doc/…``.

    Raises:
        DataError: the file is not a Debian package, or is damaged.
    """
    matcher = re.compile(pattern)
    try:
        data = _member(package, "data.tar")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            for member in archive:
                path = member.name.removeprefix(".")
                if member.isfile() and matcher.search(path) and (file := archive.extractfile(member)):
                    yield path, file.read()
    except (OSError, ValueError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise DataError(f"{package}: not readable as a Debian package ({error})") from error


def _member(package: Path, prefix: str) -> bytes:
    """Return the first member of the ar archive whose name has the prefix."""
    with package.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise ValueError("no !<arch> at its beginning")
        while len(header := file.read(HEADER)) == HEADER:
            name, size = header[:16].decode("ascii", "replace").strip(" /"), int(header[48:58])
            if name.startswith(prefix):
                return file.read(size)
            file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError(f"no {prefix} in it")
