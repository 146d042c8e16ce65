"""The log of a training: rows in ``log.jsonl`` and TensorBoard events."""

from __future__ import annotations

import json
import math
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from ..utils.files import write_text


class MetricLogger:
    """Appends to the log of one training.

    Args:
        folder: where ``log.jsonl`` and the events lie.
        name: put before the names of the events.
        update: what was logged after it is dropped, since a resumed run writes it again.
    """

    def __init__(self, folder: Path, name: str, update: int) -> None:
        self.name = name
        path = folder / "log.jsonl"
        if path.exists():
            rows = [row for row in path.read_text(encoding="utf8").splitlines() if _update_of(row) <= update]
            write_text(path, "".join(f"{row}\n" for row in rows))
        self.rows = path.open("a", encoding="utf8")
        self.events = SummaryWriter(folder, purge_step=update)

    def write(self, update: int, skipped: int, scalars: dict[str, float]) -> None:
        """Add a row; what is not finite is left out, since JSON has no word for it."""
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self.rows.write(json.dumps({"update": update, "skipped": skipped, **finite}) + "\n")
        self.rows.flush()
        for name, value in scalars.items():
            self.events.add_scalar(f"{self.name}/{name}", value, update)

    def close(self) -> None:
        """Write what is left."""
        self.rows.close()
        self.events.close()


def _update_of(row: str) -> float:
    try:
        return json.loads(row)["update"]
    except (json.JSONDecodeError, KeyError):  # the row that a kill cut short
        return math.inf
