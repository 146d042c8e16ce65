"""Downloads of models: files of the Hugging Face Hub, and torchaudio's bundles. All of them happen here.

Files are kept in the Hub's own cache (``HF_HOME``), so that other programs share them. ``HF_ENDPOINT``
names another server, ``HF_TOKEN`` opens gated repositories, ``HF_HUB_OFFLINE=1`` uses the cache alone.
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

from ..errors import CheckpointError
from ..utils.hashing import git_blob_sha1, sha256_file
from ..utils.locking import waiting_lock

ADVICE = "or fetch it elsewhere and give the path of the local file or directory instead"


class DownloadError(CheckpointError):
    """A file could not be fetched; the message says which, why, and what to do instead."""


class MissingError(DownloadError):
    """The repository has no file of that name."""


@dataclass(frozen=True)
class Repository:
    """A model repository on the Hub.

    Args:
        name: ``user/repo``.
        revision: branch, tag or commit; the main branch by default.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Repository:
        """``user/repo`` or ``user/repo@revision``."""
        name, _, revision = text.partition("@")
        return cls(name, revision or None)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    def fetch(self, filename: str, force: bool = False) -> Path:
        """Path of a file of the repository in the cache, downloaded if it is not there yet.

        What was downloaded is compared with the hash that the Hub states, every time: a file that
        was damaged on the way or on the disk is fetched once more, and then refused.

        Args:
            filename: path inside the repository.
            force: download it even if it is in the cache.

        Raises:
            MissingError: the repository has no such file.
            DownloadError: anything else that prevented it.
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
        """As :meth:`fetch`, but ``None`` where the repository has no such file."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        known = try_to_load_from_cache(self.name, filename, revision=self.revision, cache_dir=_cache())
        if known is _CACHED_NO_EXIST and self._is_pinned():
            return None
        try:
            return self.fetch(filename)
        except MissingError:
            return None
        except DownloadError:
            if known is _CACHED_NO_EXIST:  # offline, but asked before
                return None
            raise

    def pinned(self, filename: str) -> Repository:
        """The same repository at the commit that it is at now, as found by fetching a file.

        Files fetched through it belong together, whatever is pushed in the meantime.
        """
        return Repository(self.name, self.fetch(filename).parents[filename.count("/")].name)

    def _is_pinned(self) -> bool:
        return re.fullmatch("[0-9a-f]{40}", self.revision or "") is not None

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
            raise self._error(filename, f"there is no revision {self.revision!r}") from error
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
        return kind(f"{self}: cannot fetch {filename} ({reason}), {ADVICE}")


def fetch(repo: str, filename: str, revision: str | None = None, force: bool = False) -> Path:
    """Path of a file of a Hub repository in the cache; see :meth:`Repository.fetch`."""
    return Repository(repo, revision).fetch(filename, force)


def fetch_url(url: str, force: bool = False) -> Path:
    """Path of a file behind a URL in torch.hub's cache, downloaded with progress if it is not there.

    Args:
        url: ``http(s)://…``; each URL has a place of its own.
        force: download it even if it is in the cache.

    Raises:
        DownloadError: it cannot be fetched.
    """
    import torch

    name = Path(urlsplit(url).path).name
    if not url.lower().startswith(("http://", "https://")) or not name:
        raise DownloadError(f"{url!r} is no URL of a file, allowed: http(s)://…/FILE")
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    path = Path(torch.hub.get_dir(), "s3prl_dphubert", key, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with waiting_lock(path.with_suffix(".lock")):
        if force or not path.exists():
            try:  # under another name first, so that only a whole file bears the right one
                torch.hub.download_url_to_file(url, str(path))
            except (OSError, RuntimeError, EOFError, HTTPException) as error:
                raise DownloadError(f"{url}: cannot be fetched ({_first_line(error)}), {ADVICE}") from error
    return path


def bundle(name: str) -> Any:
    """A pretrained model of ``torchaudio.pipelines`` with its weights, by name (``HUBERT_BASE``).

    Raises:
        DownloadError: there is no such bundle, or its weights cannot be fetched or are damaged.
    """
    import torch
    import torchaudio

    known = {
        key: value
        for key, value in vars(torchaudio.pipelines).items()
        if isinstance(value, torchaudio.pipelines.Wav2Vec2Bundle)
    }
    if name not in known:
        raise DownloadError(f"torchaudio:{name} is no bundle, allowed: {', '.join(sorted(known))}")
    place = Path(torch.hub.get_dir(), "checkpoints")
    try:
        # torchaudio would unpickle anything that arrives; weights_only takes tensors alone.
        return known[name].get_model(dl_kwargs={"map_location": "cpu", "weights_only": True})
    except OSError as error:
        reason = _first_line(error)
        raise DownloadError(f"torchaudio:{name}: cannot fetch its weights ({reason}), {ADVICE}") from error
    except Exception as error:  # torch raises whatever a damaged archive provokes
        reason = f"{type(error).__name__}; remove it and try again"
        raise DownloadError(f"torchaudio:{name}: its file in {place} is damaged ({reason})") from error


def _cache() -> str | None:
    return os.environ.get("HF_HUB_CACHE")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _unreachable(error: Exception) -> str:
    """Why a file that is not in the cache could not be asked for."""
    cause = error.__cause__
    server = os.environ.get("HF_ENDPOINT", "huggingface.co")
    if cause is None or type(cause).__name__ == "OfflineModeIsEnabled":
        return "it is not in the cache, and HF_HUB_OFFLINE forbids the network"
    return f"it is not in the cache, and {server} cannot be reached: {_first_line(cause)}"


def _is_sound(path: Path) -> bool:
    """Whether a cached file has the hash by which the Hub calls it.

    The cache names files after the Hub's ETag: SHA-256 for large files, git's blob hash for small.
    """
    if not path.is_symlink():
        return True  # a file system without links keeps no ETag
    etag = Path(os.readlink(path)).name
    if re.fullmatch("[0-9a-f]{64}", etag):
        return sha256_file(path) == etag
    if re.fullmatch("[0-9a-f]{40}", etag):
        return git_blob_sha1(path) == etag
    return True
