"""Files and folders that appear complete or not at all, and the user's cache folder."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ..errors import CheckpointError, RunError

CACHE = "S3PRL_DPHUBERT_CACHE"
"""Environment variable that names the user's cache folder of this package."""
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # neither links nor pipes, which wait


def user_cache_dir() -> Path:
    """Return this package's cache folder: ``$S3PRL_DPHUBERT_CACHE``, or one in the user's cache.

    Raises:
        RunError: neither is named, and the user has no home folder, as in some containers.
    """
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3prl-dphubert"
    except RuntimeError as error:
        raise RunError(f"this user has no home folder; set {CACHE} to a folder of your own") from error


def private_cache_dir(*names: str) -> Path:
    """Return a folder below the cache folder that only this user can write to, created if missing.

    s3prl unpickles what lies there, so that whoever can write to it can run code.

    Raises:
        RunError: the cache folder, or one below it, belongs to another user.
    """
    path = user_cache_dir()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("", *names):
        path = path / name
        path.mkdir(exist_ok=True, mode=0o700)
        status = path.stat()
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            raise RunError(
                f"{path}: belongs to user {status.st_uid}, who could run code by its files; "
                f"set {CACHE} to a folder of your own"
            )
        if status.st_mode & 0o022:
            path.chmod(status.st_mode & 0o755)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which becomes ``path`` when the block ends without error.

    The content reaches the disk before the name does, so that a power cut leaves the old or the new file.
    What killed processes left of earlier tries is removed. Paths that exist but are not regular files, such
    as ``/dev/stdout``, are written directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    with _partial(path, is_folder=False) as partial:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)


@contextmanager
def _partial(path: Path, is_folder: bool) -> Iterator[Path]:
    """Make a file or folder beside a path, under a hidden name that nobody can predict and link elsewhere.

    It is locked, which tells other processes that it is in use, and removed at the end of the block.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        _remove_unused(leftover)
    while True:
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        if is_folder:
            partial.mkdir(parents=True)
        else:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        with _locked(partial) as lock:
            if lock is False or not partial.exists():  # another process took it for a leftover
                continue
            try:
                yield partial
            finally:
                _remove(partial)
            return


def temporary_folder(path: Path) -> AbstractContextManager[Path]:
    """Return the context of an empty folder beside a path, which is removed at its end, or else later."""
    return _partial(path, is_folder=True)


def _remove_unused(leftover: Path) -> None:
    with suppress(OSError), _locked(leftover) as lock:
        if lock:
            _remove(leftover)


@contextmanager
def _locked(path: Path) -> Iterator[bool | None]:
    """Lock a file or folder; yield ``False`` if another process holds it, ``None`` if there are no locks.

    Not in :mod:`.locking`, whose filelock the folders that ``export-hub`` writes would then have to require.
    """
    try:
        number = os.open(path, os.O_RDONLY | _CAREFUL)
    except OSError:
        yield None
        return
    try:
        try:
            import fcntl

            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock: bool | None = True
        except BlockingIOError:
            lock = False
        except (ImportError, OSError):
            lock = None
        yield lock
    finally:
        os.close(number)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # some systems open no folders
            return
        raise
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # of file systems that cannot
            raise
    finally:
        os.close(number)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, which appears complete or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf8")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which becomes ``path`` when the block ends without error.

    Raises:
        CheckpointError: ``path`` exists already, or cannot be written.
    """
    try:
        if path.exists():
            raise CheckpointError(f"{path}: exists already; choose another place or remove it first")
        with _partial(path, is_folder=True) as partial:
            yield partial
            for folder, _, names in os.walk(partial):
                for name in names:
                    _sync(Path(folder, name))
                _sync(Path(folder))
            os.replace(partial, path)
            _sync(path.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error})") from error


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern below a folder, sorted, without hidden names such as ``._a.wav``."""
    paths = (path for path in folder.glob(pattern) if not is_hidden(path.relative_to(folder)))
    return sorted(paths)


def is_hidden(path: Path) -> bool:
    """Return whether a name on a path begins with a dot, as in the files that macOS leaves beside others."""
    return any(part.startswith(".") for part in path.parts)


def remove_partial(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left anywhere below a folder."""
    for partial in list(folder.rglob("*.part")):
        _remove(partial)
