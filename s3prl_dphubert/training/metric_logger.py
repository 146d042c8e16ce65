"""Log of a training: rows in ``log.jsonl`` and TensorBoard events."""

from __future__ import annotations

import json
import math
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from ..utils.files import write_text
from ..utils.readers import parse_json


class MetricLogger:
    """Append to the log of one training.

    Args:
        folder: directory of ``log.jsonl`` and the events.
        name: prefix of the events' names.
        update: update to continue from; later rows are dropped, since a resumed run writes them again.
    """

    def __init__(self, folder: Path, name: str, update: int) -> None:
        self.name = name
        path = folder / "log.jsonl"
        if path.exists():
            rows = [
                row
                for row in path.read_text(encoding="utf8", errors="replace").splitlines()
                if _update_of(row) <= update
            ]
            write_text(path, "".join(f"{row}\n" for row in rows))
        self.rows = path.open("a", encoding="utf8")
        self.events = SummaryWriter(folder, purge_step=update)

    def write(self, update: int, skipped: int, scalars: dict[str, float]) -> None:
        """Add a row; values that are not finite are left out, since JSON cannot express them."""
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self.rows.write(json.dumps({"update": update, "skipped": skipped, **finite}) + "\n")
        self.rows.flush()
        for name, value in scalars.items():
            self.events.add_scalar(f"{self.name}/{name}", value, update)

    def close(self) -> None:
        """Flush and close the files."""
        self.rows.close()
        self.events.close()


def _update_of(row: str) -> float:
    try:
        return float(parse_json(row)["update"])
    except (ValueError, LookupError, TypeError):  # damaged, or left unfinished by a killed process
        return math.inf
