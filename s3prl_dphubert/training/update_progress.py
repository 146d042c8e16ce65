"""Progress of a training on stderr: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

from tqdm import tqdm

INTERVAL = 30.0  # seconds between lines


class UpdateProgress:
    """Show how far a training is, how fast it is, and how long it will still take.

    Args:
        name: name of the training.
        first: updates made before.
        updates: updates in all.
        enabled: whether to show anything; of several processes one should.
    """

    def __init__(self, name: str, first: int, updates: int, enabled: bool = True) -> None:
        self.name, self.first, self.update, self.updates = name, first, first, updates
        self.began = time.monotonic()
        self.last_line = -math.inf
        self.scalars: dict[str, str] = {}
        self.bar = None
        self.enabled = enabled
        if enabled and sys.stderr.isatty():
            self.bar = tqdm(initial=first, total=updates, desc=name, unit="update", mininterval=1.0)

    def step(self, scalars: Mapping[str, float] | None = None) -> None:
        """Count an update, and show its loss, sparsity and speed if they were read."""
        self.update += 1
        if scalars is not None:
            self.scalars = _format(scalars)
        if self.bar is not None:
            self.bar.set_postfix(self.scalars, refresh=False)
            self.bar.update()
        elif self.enabled:
            now = time.monotonic()
            if now - self.last_line >= INTERVAL or self.update == self.updates:
                self.last_line = now
                print(self.line(now - self.began), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """Return the progress as text, given the seconds since the start."""
        rate = (self.update - self.first) / max(seconds, 1e-9)
        left = timedelta(seconds=round((self.updates - self.update) / max(rate, 1e-9)))
        speed = f"{rate:.1f} updates/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s/update"
        parts = [f"{self.name} {self.update}/{self.updates}", speed, f"{left} left"]
        return ", ".join([*parts, *(f"{name} {value}" for name, value in self.scalars.items())])

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()


def _format(scalars: Mapping[str, float]) -> dict[str, str]:
    shown = {"loss": f"{scalars.get('loss', math.nan):.3f}"}
    shown |= {name: f"{value:.3f}" for name, value in scalars.items() if name.startswith("sparsity")}
    if (speed := scalars.get("audio_seconds_per_second")) is not None:
        shown["audio-s/s"] = f"{speed:.0f}"
    return shown
