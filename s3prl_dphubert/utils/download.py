"""Download files from the web that are no models."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

_CHUNK = 1 << 16
_RANGE_NOT_SATISFIABLE = 416  # HTTP's status


def download(
    url: str,
    part: Path,
    title: str,
    timeout: float,
    limit: int | None = None,
    beginnings: tuple[bytes, ...] = (),
) -> int | None:
    """Download what is missing of a file, with a progress bar.

    Args:
        url: of the file.
        part: file to write; its content counts as the beginning of the file, if the server can resume.
        title: of the bar.
        timeout: seconds without an answer.
        limit: bytes that the file may have.
        beginnings: bytes with one of which the file must begin.

    Returns:
        Size of the complete file in bytes, if the server states it.

    Raises:
        OSError, HTTPException, ValueError: as :func:`urllib.request.urlopen`, or the file is too large or
            begins otherwise; the bytes received stay in ``part``.
    """
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "s3prl-dphubert", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with urlopen(Request(url, headers=headers), timeout=timeout) as answer:
            start = start if answer.status == 206 else 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length else None
            if limit is not None and (total or 0) > limit:
                raise OSError(f"has {total:,} bytes, allowed: {limit:,}")
            received = start
            with (
                open(part, "ab" if start else "wb", opener=_open_no_link) as file,
                tqdm(desc=title, total=total, initial=start, unit="B", unit_scale=True, leave=None) as bar,
            ):
                while chunk := answer.read(_CHUNK):
                    if not received and beginnings and not chunk.startswith(beginnings):
                        raise OSError(f"begins with {chunk[:16]!r}, which is another kind of file")
                    received += len(chunk)
                    if limit is not None and received > limit:
                        raise OSError(f"has more than {limit:,} bytes")
                    file.write(chunk)
                    bar.update(len(chunk))
            return total
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE and start:  # the part is complete, or of another file
            return None
        raise


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
