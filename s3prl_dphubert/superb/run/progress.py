"""Lines on standard output about the jobs of a run, with their rates and the time that is left."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from .workers import logs
from .workers.launcher import Watch

EVERY = 60.0  # seconds between two lines about a job


class Reporter:
    """Writes lines, from any thread.

    Args:
        out: file to write to; standard output by default.
        every: seconds between two lines about a job.
    """

    def __init__(self, out: TextIO | None = None, every: float = EVERY) -> None:
        self._out, self._every = out, every
        self._lock = threading.Lock()

    def say(self, title: str, text: str) -> None:
        """Write a line."""
        line = f"{time.strftime('%H:%M:%S')}  {title:<20} {text}"
        with self._lock:
            print(line, file=self._out or sys.stdout, flush=True)

    def watch(self, title: str, activity: str, log: Path, bar: str = "") -> Watch:
        """Return a function for a launcher to call, which reports the progress of a job now and then.

        Args:
            title: of the job.
            activity: in a word, such as ``trains``.
            log: of its process.
            bar: title of the progress bar in the log; the last bar by default.
        """
        reported = time.monotonic()

        def report() -> None:
            nonlocal reported
            if time.monotonic() - reported < self._every:
                return
            reported = time.monotonic()
            progress = logs.progress(log, bar)
            if progress is not None:
                self.say(title, f"{activity}: {progress}")

        return report


def elapsed(since: float) -> str:
    """Return the time since a value of ``time.monotonic()`` as ``1:02:03``."""
    seconds = round(time.monotonic() - since)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
