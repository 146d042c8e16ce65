"""What s3prl's processes write: whose a log is, its end, and how far its progress bar has come."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ....errors import RunError
from ....utils.locking import has_inherited_lock, try_inherited_lock

SHOWN = 15  # lines of a log that an error repeats
_END = 1 << 16  # bytes of a log that are looked at for its end
BUSY = "a process of an earlier start still writes it; wait or end it"
_LONGEST = 500  # characters of a bar
_BAR = re.compile(
    r"(?P<title>[^|:]{0,80}):\s*\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)"
    r" \[(?P<took>[\d:]+)<(?P<left>[\d:?]+),\s*(?P<rate>[^,\]]+)"
)
OVERALL = "overall"  # s3prl's bar of all steps of a training


@dataclass(frozen=True)
class Progress:
    """Where a progress bar stands.

    Args:
        done: steps.
        total: steps.
        left: time to the end as the bar has it, ``1:02:03`` or ``?``.
        rate: with its unit, ``3.20it/s``.
    """

    done: int
    total: int
    left: str = "?"
    rate: str = "?"

    def __str__(self) -> str:
        return f"{self.done} of {self.total}, {self.rate}, {self.left} left"


@contextmanager
def own(log: Path) -> Iterator[BinaryIO]:
    """Open a log for one process and its children, empty.

    The lock goes with the file: a process that inherits it keeps it when this one is killed.

    Raises:
        RunError: a process still writes it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        if not try_inherited_lock(file):
            raise RunError(f"{log}: {BUSY}")
        file.truncate(0)
        yield file


def busy(log: Path) -> bool:
    """Whether a process writes a log."""
    return has_inherited_lock(log)


def text(log: Path) -> str:
    """All of a log, empty if there is none."""
    return log.read_text(encoding="utf8", errors="replace") if log.exists() else ""


def end(log: Path) -> str:
    """The last part of a log, which may be long."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.path.getsize(log) - _END))
            return file.read().decode("utf8", errors="replace")
    except OSError:
        return ""


def tail(text: str, lines: int = SHOWN) -> str:
    """The last lines of a log, without the states that a progress bar has overwritten."""
    kept = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return "\n".join([line for line in kept if line][-lines:])


def progress(log: Path, title: str = "") -> Progress | None:
    """How far the last bar of a log has come.

    Args:
        log: of a running or ended process.
        title: of the bar; any by default.
    """
    for line in reversed(re.split(r"[\r\n]", end(log))):
        for found in reversed(list(_BAR.finditer(line[-_LONGEST:]))):
            if not title or found["title"].strip().endswith(title):
                done, total = int(found["done"]), int(found["total"])
                return Progress(done, total, found["left"], found["rate"].strip())
    return None
