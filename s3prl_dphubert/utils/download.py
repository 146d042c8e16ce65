"""Download files from the web that are no models."""

from __future__ import annotations

from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

_CHUNK = 1 << 16
_NOTHING_BEHIND = 416  # HTTP's status


def download(url: str, part: Path, title: str, timeout: float) -> int | None:
    """Download what is missing of a file, under a bar of progress.

    Args:
        url: of the file.
        part: where it goes; what is there counts as its beginning if the server can go on from it.
        title: of the bar.
        timeout: seconds without an answer.

    Returns:
        Bytes that the whole file should have, where that is known.

    Raises:
        OSError, HTTPException, ValueError: as :func:`urllib.request.urlopen` does; what came stays.
    """
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "s3prl-dphubert", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with urlopen(Request(url, headers=headers), timeout=timeout) as answer:
            start = start if answer.status == 206 else 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length else None
            with (
                part.open("ab" if start else "wb") as file,
                tqdm(desc=title, total=total, initial=start, unit="B", unit_scale=True, leave=None) as bar,
            ):
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
            return total
    except HTTPError as error:
        if error.code == _NOTHING_BEHIND and start:  # what is here is whole, or of another file
            return None
        raise
