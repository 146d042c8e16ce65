"""What a run says while it works: one line a job, with its rate and the time that is left."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from .workers import logs
from .workers.launcher import Watch

EVERY = 60.0  # seconds between two lines about a job


class Lines:
    """Writes lines, from any thread.

    Args:
        out: where to; standard output by default.
        every: seconds between two lines about a job.
    """

    def __init__(self, out: TextIO | None = None, every: float = EVERY) -> None:
        self._out, self._every = out, every
        self._lock = threading.Lock()

    def say(self, title: str, text: str) -> None:
        """Write a line."""
        with self._lock:
            print(
                f"{time.strftime('%H:%M:%S')}  {title:<20} {text}", file=self._out or sys.stdout, flush=True
            )

    def watch(self, title: str, what: str, log: Path, bar: str = "") -> Watch:
        """What a launcher is to call while a job runs.

        Args:
            title: of the job.
            what: it does.
            log: of its process.
            bar: title of the progress bar in there; the last one by default.
        """
        shown = time.monotonic()

        def look() -> None:
            nonlocal shown
            if time.monotonic() - shown < self._every:
                return
            shown = time.monotonic()
            found = logs.progress(log, bar)
            if found is not None:
                self.say(title, f"{what}: {found}")

        return look


def took(since: float) -> str:
    """How long ago that was, ``1:02:03``."""
    seconds = round(time.monotonic() - since)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
