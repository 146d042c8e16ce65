"""Locks between processes.

They differ in who holds them and in what happens to the others:

- :func:`folder_lock` belongs to one process; a second one is refused.
- :func:`try_inherited_lock` belongs to an open file and so to all processes that inherit it; a second one
  is refused.
- :func:`waiting_lock` lets others wait for their turn.

All of them end with the process that holds them, however it ends. ``fcntl`` is imported where it is used,
since Windows, which lacks it, can still take turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import RunError

LOCK = ".lock"  # name of the lock file in a folder
_ATTEMPTS, _PAUSE = 20, 0.01  # of an inherited lock; pause in seconds


def _fcntl() -> Any:
    try:
        import fcntl
    except ImportError as error:
        raise RunError(
            f"platform is {sys.platform}, allowed for runs: Linux, macOS (fcntl is missing)"
        ) from error
    return fcntl


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, such as that of a run, for this process.

    A POSIX record lock, since the workers of a data loader would inherit one of the other kind and, when
    this process is killed, hold it for the seconds that they take to notice.

    Raises:
        RunError: another process holds it.
    """
    fcntl = _fcntl()

    with (folder / LOCK).open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{folder}: another process is running it") from error
        yield


def folder_is_locked(folder: Path) -> bool:
    """Return whether another process holds the lock of a folder."""
    fcntl = _fcntl()
    return _is_held(folder / LOCK, "r+", lambda file: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB))


def _is_held(path: Path, mode: str, lock: Callable[[IO[Any]], None]) -> bool:
    """Return whether a lock cannot be taken; that of a missing file can."""
    try:
        with path.open(mode) as file:
            lock(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def try_inherited_lock(file: IO[Any]) -> bool:
    """Lock an open file for this process and those that inherit it; return whether that succeeded.

    It tries for a fifth of a second, since :func:`has_inherited_lock` takes the lock for a moment.
    """
    fcntl = _fcntl()

    for attempt in range(_ATTEMPTS + 1):
        if attempt:
            time.sleep(_PAUSE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            continue
    return False


def has_inherited_lock(path: Path) -> bool:
    """Return whether a process holds the lock of :func:`try_inherited_lock` on a file."""
    fcntl = _fcntl()
    return _is_held(path, "rb", lambda file: fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB))


@contextmanager
def waiting_lock(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock file, as soon as no other process or thread holds it.

    Args:
        path: of the lock file, made if it is new.
        timeout: seconds to wait; for ever by default.

    Raises:
        TimeoutError: others have held it for all of that time.
    """
    from filelock import FileLock

    with FileLock(path, timeout=timeout):
        yield
