"""Locks that one process holds."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the run for one process; the lock goes when the process ends, however it ends.

    A POSIX lock, since the workers of a loader would inherit one of the other kind and, when this
    process is killed, hold it for the seconds that they take to notice.
    """
    with (out / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{out}: another process is running it") from error
        yield
