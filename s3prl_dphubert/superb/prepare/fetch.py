"""Lists that belong to a corpus and lie elsewhere: put there by hand, kept, or fetched and checked."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from ...errors import DataError
from ...utils.download import download
from ...utils.files import user_cache_dir
from ...utils.hashing import git_blob_sha1, sha256_file
from ...utils.locking import waiting_lock

log = logging.getLogger(__name__)
ATTEMPTS = 3  # for a connection that breaks; each goes on where the last one ended
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class Listed:
    """A file that is public, does not change, and may not or need not be shipped.

    Args:
        name: of the file.
        urls: where to get it; the first that gives the right file counts.
        checksum: ``sha256:HEX``, or ``git:HEX``, by which git calls a file's content.
        size: in bytes, where it is known.
        places: below the folder of data, where the user may have put it.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str
    size: int | None = None
    places: tuple[str, ...] = ()

    def obtain(self, data: Path) -> Path:
        """Its path: the user's own copy, the one fetched before, or a new one.

        A user's own file counts even where it is another one, as for a corpus of one's own; the log says so.

        Raises:
            DataError: it cannot be fetched; the message says why and where to put it by hand.
        """
        for place in self.places:
            if (data / place).is_file():
                if fault := self.fault(data / place):
                    log.warning("%s is not the published %s: %s", data / place, self.name, fault)
                return data / place
        kept = user_cache_dir() / "lists" / self.checksum.partition(":")[2][:16] / self.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(kept.with_name(f".{self.name}.lock")):
            if not kept.is_file() or self.fault(kept):
                self._fetch(kept, data)
        return kept

    def inputs(self, data: Path) -> list[Path | str]:
        """What a step depends on that uses it."""
        return [self.checksum, *(data / place for place in self.places)]

    def fault(self, path: Path) -> str:
        """What is wrong with a file, or nothing."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size} bytes, not {self.size}"
        kind, _, wanted = self.checksum.partition(":")
        found = git_blob_sha1(path) if kind == "git" else sha256_file(path)
        return "" if found == wanted else f"its {kind} checksum is {found}, not {wanted}"

    def _fetch(self, kept: Path, data: Path) -> None:
        reasons = []
        for number, url in enumerate(self.urls):
            part = kept.with_name(f".{self.name}.{number}.part")  # stays, so that the next try goes on
            reason = self._from(url, part)
            if not reason:
                os.replace(part, kept)
                return
            reasons.append(f"{url}: {reason}")
        raise DataError(
            f"{self.name}: cannot be fetched ({'; '.join(reasons)}); fetch it elsewhere and put it at "
            f"{data / self.places[0] if self.places else kept}"
        )

    def _from(self, url: str, part: Path) -> str:
        """Bring a file here; returns why not, or nothing."""
        reason = ""
        for _ in range(ATTEMPTS):
            went_on = part.exists()
            reason = _missing(url, part, self.name)
            if not reason:
                reason = self.fault(part)
                if not reason:
                    break
                part.unlink()
                if not went_on:  # else what was here may have been the beginning of another file
                    break
        return reason


def _missing(url: str, part: Path, title: str) -> str:
    """Download what is missing of a file; returns why it is not whole, or nothing."""
    try:
        total = download(url, part, title, TIMEOUT)
    except HTTPError as error:
        return f"HTTP {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    size = part.stat().st_size
    return "" if total is None or size == total else f"ended after {size} of {total} bytes"
