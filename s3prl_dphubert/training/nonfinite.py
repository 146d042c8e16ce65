"""Count updates that are skipped because a loss or gradient was not finite."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..errors import RunError

log = logging.getLogger(__name__)


def report_skip(update: int, in_a_row: int, limit: int, count: int = 1, since: int | None = None) -> None:
    """Warn that updates were skipped.

    Args:
        update: the last one that may have been.
        in_a_row: most that were skipped in a row.
        limit: number in a row that ends the run.
        count: number of skipped updates.
        since: the first update that may have been skipped; by default ``update``.

    Raises:
        RunError: ``limit`` updates or more were skipped in a row.
    """
    if since is None or since == update:
        log.warning("update %d skipped: non-finite loss or gradient", update)
    else:
        text = "%d of the updates %d to %d skipped: non-finite loss or gradient"
        log.warning(text, count, since, update)
    if in_a_row >= limit:
        raise RunError(
            f"{in_a_row} updates in a row had a non-finite loss or gradient; lower the learning rate"
        )


class SkipCounter:
    """Count skipped updates on the device, so that the host need not wait for it after every update.

    Args:
        device: device of the training.
        total: updates skipped so far.
        in_a_row: updates skipped in a row up to now.
        next_update: number of the next update, from 0.
    """

    def __init__(self, device: torch.device, total: int = 0, in_a_row: int = 0, next_update: int = 0) -> None:
        self.total, self.in_a_row = total, in_a_row  # as of the last reading
        self.next_update = next_update
        self.counts = torch.tensor([total, in_a_row, in_a_row], device=device)
        """Skipped in all, in a row up to now, and most in a row since the last reading."""

    def count(self, skipped: Tensor) -> None:
        """Count an update, skipped where the flag (0-d) is true."""
        in_a_row = (self.counts[1] + 1) * skipped
        longest = torch.maximum(self.counts[2], in_a_row)
        self.counts = torch.stack([self.counts[0] + skipped, in_a_row, longest])

    def read(self, update: int, limit: int) -> None:
        """Fetch the counts from the device, and report updates skipped since the last reading.

        Args:
            update: the last update counted.
            limit: updates that may be skipped in a row, plus one.

        Raises:
            RunError: ``limit`` updates or more were skipped in a row.
        """
        total, in_a_row, longest = self.counts.tolist()
        new, since = total - self.total, self.next_update
        self.total, self.in_a_row, self.next_update = total, in_a_row, update + 1
        self.counts[2] = in_a_row
        if new:
            report_skip(update, longest, limit, new, since)
