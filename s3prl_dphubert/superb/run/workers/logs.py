"""Logs of s3prl's processes: the lock of the process that writes one, its end, its progress bars."""

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

SHOWN = 15  # lines of a log in an error message
BUSY = "a process of an earlier start still writes it; wait or end it"
OVERALL = "overall"  # title of s3prl's bar of all steps of a training
_END = 1 << 16  # bytes at the end of a log in which a bar is searched
_LONGEST = 500  # characters of a bar
_BAR = re.compile(
    r"(?P<title>[^|:]{0,80}):\s*\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)"
    r" \[(?P<took>[\d:]+)<(?P<left>[\d:?]+),\s*(?P<rate>[^,\]]+)"
)

_IS_BAR = re.compile(r"\d+%\|.*\|\s*\d+/\d+|\d+(it|file|pair|split|B) \[\d+:\d+")
_EXCEPTION = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt|Exit)\b: ")


@dataclass(frozen=True)
class Progress:
    """State of a progress bar.

    Args:
        done: steps.
        total: steps.
        left: time to the end as the bar shows it, ``1:02:03`` or ``?``.
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
    """Open a log, emptied, for one process and its children alone.

    A child that inherits the file keeps the lock when this process is killed.

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
    """Return whether a process writes a log."""
    return has_inherited_lock(log)


def text(log: Path) -> str:
    """Read a whole log; a missing one is empty."""
    return log.read_text(encoding="utf8", errors="replace") if log.exists() else ""


def tail(text: str, lines: int = SHOWN) -> str:
    """Return the last lines of a log, without progress bars and what they have overwritten."""
    visible = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return "\n".join([line for line in visible if line and not _IS_BAR.search(line)][-lines:])


def reason(text: str) -> str:
    """Return the line of a log or of an error message that says why a process ended: its last exception."""
    lines = tail(text, 1000).split("\n")
    return next((line for line in reversed(lines) if _EXCEPTION.match(line)), lines[-1])


def progress(log: Path, title: str = "") -> Progress | None:
    """Return the state of the last progress bar in a log.

    Args:
        log: of a running or ended process.
        title: of the bar; any by default.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.path.getsize(log) - _END))
            end = file.read().decode("utf8", errors="replace")
    except OSError:
        return None
    for line in reversed(re.split(r"[\r\n]", end)):
        for bar in reversed(list(_BAR.finditer(line[-_LONGEST:]))):
            if not title or bar["title"].strip().endswith(title):
                return Progress(int(bar["done"]), int(bar["total"]), bar["left"], bar["rate"].strip())
    return None
