"""Download models: files of the Hugging Face Hub, files behind URLs and torchaudio's bundles.

No other module downloads models. Files of the Hub go into its own cache (``HF_HOME``), which other
programs share. ``HF_ENDPOINT`` names another server, ``HF_TOKEN`` opens gated repositories, and
``HF_HUB_OFFLINE=1`` restricts everything to the cache.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import CheckpointError, shown
from ..utils.download import download
from ..utils.files import replacing
from ..utils.hashing import git_blob_sha1, sha256_file
from ..utils.locking import waiting_lock
from .teachers import TEACHERS

TIMEOUT, PATIENCE = 30, 1800  # seconds without an answer; seconds for another process that fetches the file
LARGEST, LONGEST_NAME = 16 << 30, 100  # bytes of a file, characters of its name
MODEL_BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of torch.save's files, zip and pickle
RELEASED = {
    "dphubert": "pyf98/DPHuBERT/DPHuBERT-sp0.75.pth",
    "dpwavlm": "pyf98/DPHuBERT/DPWavLM-sp0.75.pth",
}
"""Upstream -> compressed model that the authors of DPHuBERT released on the Hugging Face Hub."""

TORCHAUDIO = "torchaudio:"  # in front of a bundle's name
ADVICE = "fetch it elsewhere and give the path of the local file or directory instead"
_NAME = r"[A-Za-z0-9][\w.-]*"
_HUB_ID = re.compile(rf"(?P<name>{_NAME}/{_NAME})(?P<file>(?:/{_NAME})*)(?:@(?P<revision>[^\s@]+))?")


class DownloadError(CheckpointError):
    """A file could not be downloaded; the message names it, the reason and an alternative."""


class MissingError(DownloadError):
    """The repository has no file of that name."""


@dataclass(frozen=True)
class HubRepository:
    """A model repository on the Hub.

    Args:
        name: ``user/repo``.
        revision: branch, tag or commit; the main branch by default.
    """

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def fetch(self, filename: str, force: bool = False) -> Path:
        """Return the path of a file in the cache, and download it first if it is not there.

        The file is compared with the hash that the Hub states, every time: one that was damaged in
        transit or on the disk is downloaded once more, and then refused.

        Args:
            filename: path inside the repository.
            force: download the file even if it is in the cache.

        Raises:
            MissingError: the repository has no such file.
            DownloadError: the download failed for another reason.
        """
        path = self._download(filename, force)
        if _is_sound(path):
            return path
        try:
            path = self._download(filename, True)
        except DownloadError as error:
            reason = f"{path.resolve()} is damaged, and fetching it again failed: {error.__cause__}"
            raise self._error(filename, reason) from error
        if _is_sound(path):
            return path
        path.resolve().unlink(missing_ok=True)  # so that nobody else takes it for good
        raise self._error(filename, "what arrived does not have the hash that the Hub states; try again")

    def find(self, filename: str) -> Path | None:
        """Fetch a file as :meth:`fetch` does; return ``None`` if the repository has none of that name."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, filename, revision=self.revision, cache_dir=_cache())
        is_commit = re.fullmatch("[0-9a-f]{40}", self.revision or "") is not None
        if cached is _CACHED_NO_EXIST and is_commit:
            return None
        try:
            return self.fetch(filename)
        except MissingError:
            return None
        except DownloadError:
            if cached is _CACHED_NO_EXIST:  # offline, but asked before
                return None
            raise

    def pinned(self, filename: str) -> HubRepository:
        """Fetch a file, and return the repository at the commit that the file is from.

        Files fetched through the result belong together, whatever is pushed in the meantime.
        """
        return HubRepository(self.name, self.fetch(filename).parents[filename.count("/")].name)

    def _download(self, filename: str, force: bool) -> Path:
        from huggingface_hub import errors, hf_hub_download

        try:
            path = hf_hub_download(
                self.name,
                filename,
                revision=self.revision,
                force_download=force,
                endpoint=os.environ.get("HF_ENDPOINT"),
                cache_dir=_cache(),
            )
        except errors.LocalEntryNotFoundError as error:
            raise self._error(filename, _unreachable(error)) from error
        except errors.EntryNotFoundError as error:
            raise self._error(filename, "the repository has no such file", MissingError) from error
        except errors.RevisionNotFoundError as error:
            raise self._error(filename, f"there is no revision {shown(self.revision)}") from error
        except errors.GatedRepoError as error:
            reason = "the repository is gated; accept its terms on its page, then set HF_TOKEN"
            raise self._error(filename, reason) from error
        except errors.RepositoryNotFoundError as error:
            reason = "there is no such repository, or it is private; if so, set HF_TOKEN"
            raise self._error(filename, reason) from error
        except Exception as error:  # those of the disk, and of whichever HTTP library the client uses
            raise self._error(filename, _first_line(error)) from error
        return Path(path)

    def _error(self, filename: str, reason: str, kind: type[DownloadError] = DownloadError) -> DownloadError:
        return kind(f"{self}: cannot fetch {filename} ({reason}); {ADVICE}")


def parse_hub_id(text: str) -> tuple[HubRepository, str] | None:
    """Split ``user/repo[/path/in/repo][@revision]`` into the repository and the path, which may be empty.

    Returns:
        ``None`` if the text has another form.
    """
    match = _HUB_ID.fullmatch(text)
    return None if match is None else (HubRepository(match["name"], match["revision"]), match["file"][1:])


def fetch(repo: str, filename: str, revision: str | None = None, force: bool = False) -> Path:
    """Return the path of a file of a Hub repository in the cache; see :meth:`HubRepository.fetch`."""
    return HubRepository(repo, revision).fetch(filename, force)


def is_url(text: str) -> bool:
    """Return whether a text begins as the URLs that :func:`fetch_url` takes."""
    return text.lower().startswith(("http://", "https://"))


def is_remote(source: str) -> bool:
    """Return whether a source of :func:`~s3prl_dphubert.load_model` has a form that needs no local file."""
    known = source in TEACHERS or source.startswith(TORCHAUDIO) or is_url(source)
    return known or parse_hub_id(source) is not None


def fetch_url(url: str, force: bool = False) -> Path:
    """Return the path of a file in torch.hub's cache, and download it from its URL if it is not there.

    Args:
        url: ``http(s)://…/FILE``; each URL has a folder of its own in the cache.
        force: download the file even if it is in the cache.

    Raises:
        DownloadError: the text is not the URL of a file, or the download failed.
    """
    from filelock import Timeout

    path = url_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(path.with_suffix(".lock"), PATIENCE):
            if force or not path.exists():
                with replacing(path) as part:
                    _download_model(url, part, path.name)
    except (OSError, ValueError, HTTPException) as error:
        is_locked = isinstance(error, Timeout)
        reason = (
            f"another process fetches it for {PATIENCE // 60} minutes" if is_locked else _first_line(error)
        )
        raise DownloadError(f"{url}: cannot be fetched ({reason}), {ADVICE}") from error
    return path


def url_path(url: str) -> Path:
    """Return the path that the file of a URL has, or will have, in torch.hub's cache.

    Raises:
        DownloadError: the text is not the URL of a file.
    """
    import torch

    try:
        name = Path(urlsplit(url).path).name
    except ValueError:
        name = ""
    if not is_url(url) or not name:
        raise DownloadError(f"{shown(url)} is not a file URL, expected http(s)://…/FILE")
    key = hashlib.sha256(url.encode(errors="surrogateescape")).hexdigest()[:16]
    return Path(torch.hub.get_dir(), "s3prl_dphubert", key, name[-LONGEST_NAME:])


def _download_model(url: str, part: Path, title: str) -> None:
    """Download a file of ``torch.save``, which is told by its first bytes.

    Raises:
        OSError, ValueError, HTTPException: the server is silent, or sends something else or too little.
    """
    total = download(url, part, title, TIMEOUT, LARGEST, MODEL_BEGINNINGS)
    size = part.stat().st_size
    if total is not None and size != total:
        raise OSError(f"the connection ended after {size:,} of {total:,} bytes")


def load_bundle(name: str) -> Any:
    """Return the pre-trained model of a bundle of ``torchaudio.pipelines`` (``HUBERT_BASE``).

    Raises:
        DownloadError: torchaudio is not installed, there is no such bundle, or its weights cannot be
            downloaded or are damaged.
    """
    import torch

    try:
        import torchaudio
    except (ImportError, OSError) as error:  # OSError: built for another torch
        advice = "pip install 's3prl-dphubert[torchaudio]'"
        raise DownloadError(
            f"torchaudio:{name}: torchaudio cannot be imported ({error}), {advice}"
        ) from error

    bundles = {
        key: value
        for key, value in vars(torchaudio.pipelines).items()
        if isinstance(value, torchaudio.pipelines.Wav2Vec2Bundle)
    }
    if name not in bundles:
        raise DownloadError(f"torchaudio:{name}: no such bundle; available: {', '.join(sorted(bundles))}")
    try:
        # torchaudio would unpickle anything that arrives; weights_only takes tensors alone.
        return bundles[name].get_model(dl_kwargs={"map_location": "cpu", "weights_only": True})
    except OSError as error:
        reason = _first_line(error)
        raise DownloadError(f"torchaudio:{name}: cannot fetch its weights ({reason}); {ADVICE}") from error
    except Exception as error:  # torch raises whatever a damaged archive provokes
        reason = f"{type(error).__name__}; remove it and try again"
        folder = Path(torch.hub.get_dir(), "checkpoints")
        raise DownloadError(f"torchaudio:{name}: its file in {folder} is damaged ({reason})") from error


def _cache() -> str | None:
    return os.environ.get("HF_HUB_CACHE")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _unreachable(error: Exception) -> str:
    """Return why a file that is not in the cache could not be requested."""
    cause = error.__cause__
    server = os.environ.get("HF_ENDPOINT", "huggingface.co")
    if cause is None or type(cause).__name__ == "OfflineModeIsEnabled":
        return "it is not in the cache, and HF_HUB_OFFLINE forbids the network"
    return f"it is not in the cache, and {server} cannot be reached: {_first_line(cause)}"


def _is_sound(path: Path) -> bool:
    """Return whether a cached file has the hash that the Hub states.

    The cache names files after the Hub's ETag: SHA-256 for large files, git's blob hash for small ones.
    """
    if not path.is_symlink():
        return True  # a file system without links keeps no ETag
    etag = Path(os.readlink(path)).name
    if re.fullmatch("[0-9a-f]{64}", etag):
        return sha256_file(path) == etag
    if re.fullmatch("[0-9a-f]{40}", etag):
        return git_blob_sha1(path) == etag
    return True
