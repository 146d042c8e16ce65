"""Slots: a GPU, a group of GPUs or a share of the processors, each for one job at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Slot:
    """Devices that a job computes on.

    Args:
        device: as after s3prl's ``--device``.
        gpus: value of CUDA_VISIBLE_DEVICES; empty leaves the variable as it is.
        processes: number of processes of a training.
    """

    device: str = "cpu"
    gpus: str = ""
    processes: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the job."""
        return {"CUDA_VISIBLE_DEVICES": self.gpus} if self.gpus else {}


class Gate:
    """Lets threads wait until all of them have arrived.

    Args:
        count: number of threads.
    """

    def __init__(self, count: int) -> None:
        self._missing = count
        self._condition = threading.Condition()

    def arrive(self) -> None:
        """Count one thread."""
        with self._condition:
            self._missing -= 1
            self._condition.notify_all()

    def wait(self) -> None:
        """Wait until all threads have arrived."""
        with self._condition:
            self._condition.wait_for(lambda: self._missing <= 0)


class SlotPool:
    """Runs jobs in threads, first come, first served, as soon as a slot is free.

    Args:
        slots: at least one.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.preparing = threading.Lock()  # preparations read disks, so one at a time
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._pool = ThreadPoolExecutor(len(slots), thread_name_prefix="slot")

    def submit(self, job: Callable[[Slot], Any]) -> Future[Any]:
        """Queue a job, which is called with the slot that it gets."""

        def run() -> Any:
            slot = self._free.get()
            try:
                return job(slot)
            finally:
                self._free.put(slot)

        return self._pool.submit(run)

    def close(self) -> None:
        """Drop the jobs that wait, and wait for those that run."""
        self._pool.shutdown(wait=True, cancel_futures=True)
