"""Processes that run one subject each, with separate memory, settings and imports."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RunError
from ..utils.malloc import give_back_pages
from .subjects import Call, Subject
from .workload import Workload

CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class StartTimes:
    """Times until a subject has answered its first call.

    Args:
        load: seconds to load the model, without imports.
        first: seconds of the first call.
    """

    load: float
    first: float


class Worker:
    """Handle of such a process.

    Args:
        subject: subject to run.
        models: folder of the files that it loads.
        threads: number of threads.

    Raises:
        RunError: the subject failed; the message holds its error.
    """

    def __init__(self, subject: Subject, models: Path, threads: int) -> None:
        self.subject = subject
        # The fork server imports what all workers need once, and may be forked because it computes nothing.
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([__name__])
        self._connection, other = context.Pipe()
        arguments = (other, subject, models, threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other.close()
        self._ask(None)

    def start(self, workload: Workload) -> StartTimes:
        """Load the subject and run it once."""
        return StartTimes(**self._ask("start", workload))

    def time(self, workload: Workload) -> float:
        """Return the seconds of one call."""
        return self._ask("time", workload)

    def peak(self, workload: Workload) -> int:
        """Return the peak memory in bytes of the process in one call, or in its life without /proc."""
        return self._ask("peak", workload)

    def hidden(self, workload: Workload) -> np.ndarray:
        """Return the last hidden state (B, F, D)."""
        return self._ask("hidden", workload)

    def rest(self) -> None:
        """Release memory that the process does not need, before others take their turns."""
        self._ask("rest")

    def stop(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()

    def _ask(self, request: str | None, *arguments: Any) -> Any:
        try:
            if request is not None:
                self._connection.send((request, *arguments))
            answer, failure = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RunError(f"{self.subject.name}: its process ended ({type(error).__name__})") from error
        if failure is not None:
            raise RunError(f"{self.subject.name}: {failure}")
        return answer


def _serve(connection: Connection, subject: Subject, models: Path, threads: int) -> None:
    """Answer requests until the connection is closed."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (progress and warnings of libraries)
    torch.set_num_threads(threads)
    served: dict[str, Any] = {}

    def answer(request: str | None, *arguments: Any) -> Any:
        if request is None:
            subject.libraries()
            return None
        if request == "start":
            began = time.perf_counter()
            served["call"] = subject.load(models)
            loaded = time.perf_counter()
            _run(served["call"], *arguments[0].batch())
            return asdict(StartTimes(loaded - began, time.perf_counter() - loaded))
        if request == "rest":
            gc.collect()
            return give_back_pages()
        return _MEASURES[request](served["call"], arguments[0])

    message: tuple[Any, ...] = (None,)
    while True:
        try:
            connection.send((answer(*message), None))
        except Exception as error:
            connection.send((None, f"{type(error).__name__}: {error}"))
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return


@torch.no_grad()
def _run(call: Call, waveforms: Tensor, lengths: Tensor | None) -> Any:
    return call(waveforms, lengths)


def _time(call: Call, workload: Workload) -> float:
    batch = workload.batch()
    began = time.perf_counter()
    _run(call, *batch)
    return time.perf_counter() - began


def _peak(call: Call, workload: Workload) -> int:
    batch = workload.batch()
    try:
        CLEAR_REFS.write_text("5")  # resets the peak
        _run(call, *batch)
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        _run(call, *batch)
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _hidden(call: Call, workload: Workload) -> np.ndarray:
    return _run(call, *workload.batch()).float().numpy()


_MEASURES = {"time": _time, "peak": _peak, "hidden": _hidden}
