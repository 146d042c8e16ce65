"""What a benchmark has measured so far: one line a turn, so that it goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, RunError
from ..utils.files import write_text


class Record:
    """A file ``turns.jsonl``: first what is measured and where, then what came out.

    Args:
        path: the file; made if it is not there.
        setting: subjects, workloads, threads, versions, machine.

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
        whole, _, rest = path.read_text(encoding="utf8").rpartition("\n")
        if rest:  # cut off in the middle of a line
            write_text(path, whole + "\n")
        try:
            before, *self.entries = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged ({error})") from error
        differing = [name for name in setting if json.loads(json.dumps(setting[name])) != before.get(name)]
        if differing:
            raise RunError(
                f"{path} was made with other {', '.join(differing)}; choose another --out or remove it first"
            )

    def add(self, entry: dict[str, Any]) -> None:
        """Append a line."""
        self.entries.append(entry)
        with self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(entry) + "\n")

    def of(self, kind: str, **values: Any) -> list[dict[str, Any]]:
        """Entries of a kind (``start``, ``turn``, ``peak``) with these values."""
        wanted = {"kind": kind, **values}
        return [e for e in self.entries if all(e.get(name) == value for name, value in wanted.items())]
