"""Where the jobs of a run wait for a GPU or a processor: first come, first served."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .experiment import Where


class Lanes:
    """As many jobs at a time as there are places.

    Args:
        places: where jobs run.
    """

    def __init__(self, places: Sequence[Where]) -> None:
        self.preparing = threading.Lock()  # preparations read disks, one at a time
        self._free: queue.SimpleQueue[Where] = queue.SimpleQueue()
        for place in places:
            self._free.put(place)
        self._pool = ThreadPoolExecutor(len(places), thread_name_prefix="lane")

    def submit(self, work: Callable[[Where], Any]) -> Future[Any]:
        """Have something done as soon as a place is free."""

        def on_a_place() -> Any:
            place = self._free.get()
            try:
                return work(place)
            finally:
                self._free.put(place)

        return self._pool.submit(on_a_place)

    def close(self) -> None:
        """Forget the jobs that wait, and wait for those that run."""
        self._pool.shutdown(wait=True, cancel_futures=True)
