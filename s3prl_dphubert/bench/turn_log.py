"""Log of the measurements of a benchmark, one line each, from which an interrupted benchmark continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, RunError
from ..utils.files import write_text
from ..utils.readers import LARGEST_RECORD, parse_json, read_limited, reading


class TurnLog:
    """File ``turns.jsonl``: the setting of the benchmark, followed by its measurements.

    Args:
        path: the file; created if it does not exist.
        setting: subjects, workloads, threads, versions and machine.

    Raises:
        RunError: the file was made in another setting.
        CheckpointError: the file is damaged.
    """

    def __init__(self, path: Path, setting: dict[str, Any]) -> None:
        self.path, self.setting = path, setting
        self.entries: list[dict[str, Any]] = []
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(setting) + "\n")
            return
        with reading(path, CheckpointError, "a log of measurements"):
            complete, _, rest = read_limited(path, LARGEST_RECORD).decode().rpartition("\n")
        if rest:  # a killed process left half a line
            write_text(path, complete + "\n")
        try:
            previous, *self.entries = [parse_json(line) for line in complete.splitlines()]
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged ({error})") from error
        setting = json.loads(json.dumps(setting))
        differing = [name for name, value in setting.items() if value != previous.get(name)]
        if differing:
            raise RunError(
                f"{path} was made with other {', '.join(differing)}; choose another --out or remove it first"
            )

    def add(self, entry: dict[str, Any]) -> None:
        """Append a measurement."""
        self.entries.append(entry)
        with self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(entry) + "\n")

    def select(self, kind: str, **values: Any) -> list[dict[str, Any]]:
        """Return the entries of a kind (``start``, ``error``, ``turn``, ``peak``) with the given values."""
        required = {"kind": kind, **values}
        return [e for e in self.entries if all(e.get(name) == value for name, value in required.items())]
