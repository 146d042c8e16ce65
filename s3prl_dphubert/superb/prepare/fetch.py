"""Public files that belong to a corpus and lie elsewhere: put there by hand, or fetched, checked and kept."""

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
ATTEMPTS = 3  # for a connection that breaks; each resumes where the last one ended
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class PublicFile:
    """A file on the web that does not change, and that cannot or need not be shipped.

    Args:
        name: of the file.
        urls: sources; the first that gives the right content is taken.
        checksum: ``sha256:HEX``, or ``git:HEX``, the hash by which git names a file's content.
        size: in bytes, if known.
        places: paths below the folder of data where the user may have put it.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str
    size: int | None = None
    places: tuple[str, ...] = ()

    def obtain(self, data: Path) -> Path:
        """Return the path of the user's own copy, or of the cached one, fetched if need be.

        The user's own copy is taken even if its content differs, with a warning: the corpus may be another.

        Raises:
            DataError: it cannot be fetched; the message says why and where to put it by hand.
        """
        for place in self.places:
            if (data / place).is_file():
                if fault := self.fault(data / place):
                    log.warning("%s is not the published %s: %s", data / place, self.name, fault)
                return data / place
        cached = self._cached
        cached.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(cached.with_name(f".{self.name}.lock")):
            if not cached.is_file() or self.fault(cached):
                self._fetch(cached, data)
        return cached

    def local(self, data: Path | None) -> Path | None:
        """Return the path of a copy of the published content on this machine; ``None`` if there is none."""
        own = [data / place for place in self.places] if data else []
        copies = (path for path in [*own, self._cached] if path.is_file() and not self.fault(path))
        return next(copies, None)

    @property
    def _cached(self) -> Path:
        return user_cache_dir() / "lists" / self.checksum.partition(":")[2][:16] / self.name

    def inputs(self, data: Path) -> list[Path | str]:
        """Return the inputs of a step that uses this file, for its :attr:`.PreparationStep.inputs`."""
        return [self.checksum, *(data / place for place in self.places)]

    def fault(self, path: Path) -> str:
        """Return how the content of a file differs from the published one, empty if it does not."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size} bytes, not {self.size}"
        kind, _, expected = self.checksum.partition(":")
        checksum = git_blob_sha1(path) if kind == "git" else sha256_file(path)
        return "" if checksum == expected else f"its {kind} checksum is {checksum}, not {expected}"

    def _fetch(self, target: Path, data: Path) -> None:
        reasons = []
        for number, url in enumerate(self.urls):
            part = target.with_name(f".{self.name}.{number}.part")  # is left, so that the next try resumes
            reason = self._fetch_from(url, part)
            if not reason:
                os.replace(part, target)
                return
            reasons.append(f"{url}: {reason}")
        raise DataError(
            f"{self.name}: cannot be fetched ({'; '.join(reasons)}); fetch it elsewhere and put it at "
            f"{data / self.places[0] if self.places else target}"
        )

    def _fetch_from(self, url: str, part: Path) -> str:
        """Fetch the file from one source; return why that failed, or nothing."""
        reason = ""
        for _ in range(ATTEMPTS):
            resumed = part.exists()
            reason = _download_rest(url, part, self.name)
            if not reason:
                reason = self.fault(part)
                if not reason:
                    break
                part.unlink()
                if not resumed:  # otherwise the part may have been the beginning of another file
                    break
        return reason


def _download_rest(url: str, part: Path, title: str) -> str:
    """Download what is missing of a file; return why it is not complete, or nothing."""
    try:
        total = download(url, part, title, TIMEOUT)
    except HTTPError as error:
        return f"HTTP {error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    size = part.stat().st_size
    return "" if total is None or size == total else f"ended after {size} of {total} bytes"
