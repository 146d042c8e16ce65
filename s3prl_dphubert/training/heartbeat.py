"""Heartbeats between the processes of a run.

A process that waits for a dead one inside a collective operation cannot raise, and a timeout of the
operation would also end it while another process does long work alone. Each process therefore sends
heartbeats from a thread of its own, and exits when another one falls silent.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

BEAT = 2.0  # seconds between heartbeats
SILENCE = 40  # seconds without a heartbeat after which a process counts as dead


class Heartbeat:
    """Send heartbeats and watch those of the other processes, until stopped.

    Silence is counted in seconds in which this process was running, so that after a suspension of the
    machine no process is taken for dead.

    Args:
        store: connection to the shared store that nothing else uses.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self.store, self.rank = store, rank
        self.heard = {other: -1 for other in range(world) if other != rank}
        self.silent = dict.fromkeys(self.heard, 0)
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self._beat, self._watch)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Send and watch no more heartbeats."""
        self.stopped.set()
        self.threads[1].join()

    def _beat(self) -> None:
        try:
            while not self.stopped.wait(BEAT):
                self.store.add(f"beats/{self.rank}", 1)
                for other in self.heard:
                    beats = self.store.add(f"beats/{other}", 0)
                    if beats != self.heard[other]:
                        self.heard[other], self.silent[other] = beats, 0
        except RuntimeError:  # the store is gone, and with it its host, whose silence is noticed
            return

    def _watch(self) -> None:
        while not self.stopped.wait(1.0):
            for other in self.silent:
                self.silent[other] += 1
                if self.silent[other] > SILENCE:
                    message = f"process {other} of the run has given no sign of life for {SILENCE} s"
                    print(f"s3prl-dphubert: {message}", file=sys.stderr, flush=True)
                    os._exit(2)  # the main thread may be stuck where no exception reaches it
