"""Damaged inputs, tried one after another in a child with limits."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tests.torture.damaged_files import KINDS, ORIGINALS, SLOW
from tests.torture.figures import FAILED
from tests.torture.restrictions import Watch, limited_memory
from tests.torture.sandbox import Case, Child, Trial, as_command, fork, judged

MEMORY, SECONDS = 2 << 30, 20
"""Bytes and seconds that an input of at most 10 MB may take."""

EACH = 24  # rounds of which one has the kinds that take seconds for each case
SERVED = 100  # requests to one child, before another takes its place
PATIENCE = 2 * SECONDS  # seconds for an answer, the making of the input included


class Worker:
    """A child that answers requests; one that has died, hangs, or has answered many is replaced.

    Args:
        serve: called in the child with a request; both it and the answer are plain values.
        log: file for what the child prints to stderr; ``serve`` may empty it.
        patience: seconds for an answer.
    """

    def __init__(self, serve: Callable[[Any], Any], log: Path, patience: float = PATIENCE) -> None:
        self.serve, self.log, self.patience = serve, log, patience
        self._child: Child | None = None
        self._connection: Connection | None = None
        self._served = 0

    def ask(self, request: Any) -> tuple[Any, int | None]:
        """Return the answer; if none came, ``None`` and the exit code of the child (``None``: it hung)."""
        if self._child is None or self._served >= SERVED:
            self.close()
            self._start()
        self._served += 1
        assert self._connection is not None and self._child is not None
        try:
            self._connection.send(request)
            if self._connection.poll(self.patience):
                return self._connection.recv(), None
            code = None
        except (EOFError, OSError):
            code = self._child.wait(SECONDS).code
        self.close()
        return None, code

    def _start(self) -> None:
        own, other = Pipe()

        def answer() -> None:
            own.close()
            while True:
                other.send(self.serve(other.recv()))

        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._child, self._connection, self._served = fork(answer, self.log), own, 0
        other.close()

    def close(self) -> None:
        """End the child."""
        if self._child is not None and self._connection is not None:
            self._child.kill()
            self._connection.close()
        self._child = self._connection = None


@cache
def _watch() -> Watch:
    """Return the one of this process: it cannot be taken away again."""
    return Watch()


def bounded(use: Callable[[], Any]) -> tuple[str, str, float]:
    """Use an input in this process, under limits, as a command would; return outcome, detail and seconds.

    What it prints to stderr, which has to be a file, is taken from there.
    """
    sys.stderr.flush()
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    began, code = time.monotonic(), 1
    with limited_memory(MEMORY), _watch():
        try:
            code = as_command(use)()
        except BaseException:  # also the end of the interpreter, which no input may cause
            traceback.print_exc()
    seconds = time.monotonic() - began
    sys.stderr.flush()
    size = os.lseek(2, 0, os.SEEK_END)
    text = os.pread(2, size, 0).decode("utf8", "replace")
    outcome, detail = judged(code if seconds <= SECONDS else None, text)
    return outcome, detail, seconds


def cases(seed: int, place: Path) -> Iterator[Case]:
    """Yield cases without end: the kinds take turns, the slow ones in few rounds."""
    worker = Worker(partial(serve, seed, place), place / "worker.txt")
    number = 0
    try:
        while True:
            for kind in KINDS:
                if kind not in SLOW or not number % EACH:
                    yield Case("damage", kind, number, partial(trial, worker, place, kind, number))
            number += 1
    finally:
        worker.close()


def trial(worker: Worker, place: Path, kind: str, number: int) -> Trial:
    """Try one case."""
    original = place / "originals" / kind
    if kind in ORIGINALS and not original.exists():
        original.mkdir(parents=True)
        ORIGINALS[kind](original)
    began = time.monotonic()
    answer, code = worker.ask((kind, number))
    if answer is not None:
        outcome, detail, seconds = answer
        return Trial("damage", kind, number, outcome, detail, round(seconds, 3))
    _, detail = judged(code, worker.log.read_text(encoding="utf8", errors="replace"))
    return Trial("damage", kind, number, FAILED, detail or "it ended", round(time.monotonic() - began, 3))


def serve(seed: int, place: Path, request: tuple[str, int]) -> tuple[str, str, float]:
    """Make a case and try it; what failed stays, to be looked at."""
    kind, number = request
    random = np.random.default_rng((seed, len(kind), *kind.encode(), number))
    folder = place / f"{kind.replace(' ', '-')}-{number}"
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    answer = bounded(KINDS[kind](random, folder, place / "originals" / kind))
    if answer[0] != FAILED:
        shutil.rmtree(folder)
    return answer
