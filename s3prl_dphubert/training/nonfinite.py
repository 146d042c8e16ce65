"""Updates that are skipped because a loss or gradient was not finite."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..errors import RunError

log = logging.getLogger(__name__)


def report_skip(update: int, in_a_row: int, most: int) -> None:
    """Warn that an update was skipped.

    Raises:
        RunError: so many have been skipped one after the other.
    """
    log.warning("update %d skipped: non-finite loss or gradient", update)
    if in_a_row >= most:
        raise RunError(
            f"{in_a_row} updates in a row had a non-finite loss or gradient; lower the learning rate"
        )


class SkipCounter:
    """Counts skipped updates on the device; the host knows those up to the last reading.

    Args:
        device: where the updates are made.
        total: skipped so far.
        in_a_row: of them the last ones, one after the other.
    """

    def __init__(self, device: torch.device, total: int = 0, in_a_row: int = 0) -> None:
        self.total, self.in_a_row = total, in_a_row
        self.counts = torch.tensor([total, in_a_row, in_a_row], device=device)  # the last: most in a row

    def count(self, bad: Tensor) -> None:
        """Note an update, skipped where ``bad`` (0-d) is true."""
        in_a_row = (self.counts[1] + 1) * bad
        most = torch.maximum(self.counts[2], in_a_row)
        self.counts = torch.stack([self.counts[0] + bad, in_a_row, most])

    def read(self, counts: list[int], update: int, most: int) -> None:
        """Take what the device has counted up to an update, and report what is new.

        Raises:
            RunError: ``most`` updates or more were skipped in a row.
        """
        new = counts[0] > self.total
        self.total, self.in_a_row = counts[:2]
        self.counts[2] = self.in_a_row
        if new:
            report_skip(update, counts[2], most)
