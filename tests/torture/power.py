"""Losses in a power cut: content and names that had not reached the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Journal:
    """Notes of a process on what it waited for to be on the disk, and of its renames.

    Args:
        folder: for the notes, and for files that were replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def keep(self) -> None:
        """Take notes of this process from now on."""
        notes = os.open(self.folder / "notes.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        fsync, renames = os.fsync, {"replace": os.replace, "rename": os.rename}
        synced: set[int] = set()

        def note(*values: Any) -> None:
            os.write(notes, f"{json.dumps(values)}\n".encode())

        def watched_fsync(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            fsync(number)
            status = os.fstat(number)
            synced.add(status.st_ino)
            note("synced", os.readlink(f"/proc/self/fd/{number}"), status.st_ino, status.st_size)

        def watched(rename: Any) -> Any:
            def watched_rename(source: Any, target: Any, **more: Any) -> None:
                paths = [Path(source), *Path(source).rglob("*")]
                for path in paths:
                    if path.is_file() and path.stat().st_ino not in synced:
                        note("early", f"{path} -> {target}")
                backup = self.folder / f"replaced-{len(list(self.folder.iterdir()))}"
                if Path(target).is_file():
                    os.link(target, backup)
                rename(source, target, **more)
                note("renamed", str(source), str(target), str(backup))

            return watched_rename

        os.fsync = watched_fsync
        os.replace, os.rename = watched(renames["replace"]), watched(renames["rename"])

    def _notes(self) -> Iterator[list[Any]]:
        path = self.folder / "notes.jsonl"
        for line in path.read_text(encoding="utf8").splitlines() if path.exists() else ():
            yield json.loads(line)

    def early(self) -> list[str]:
        """Return the renames of files whose content was not on the disk."""
        return [values[0] for what, *values in self._notes() if what == "early"]

    def lose(self, disk: Path, random: np.random.Generator) -> None:
        """Take away a random part of what a power cut may take.

        Names that were given since their folder was last on the disk may be the old ones again, the last
        ones first, and files may have lost any part of their end that was not on the disk.

        Args:
            disk: folder of all that the process wrote.
            random: decides.
        """
        pending: list[tuple[Path, Path, Path]] = []
        sizes: dict[int, int] = {}
        for what, *values in self._notes():
            if what == "synced":
                path, number, size = values
                sizes[number] = size
                pending = [names for names in pending if names[1].parent != Path(path)]
            elif what == "renamed":
                pending.append((Path(values[0]), Path(values[1]), Path(values[2])))
        for source, target, backup in pending[::-1][: int(random.integers(len(pending) + 1))]:
            if target.exists() and source.parent.exists() and not source.exists():
                os.rename(target, source)
                if backup.exists():
                    os.rename(backup, target)
        for path in sorted(disk.rglob("*")):
            if path.is_file() and not path.is_symlink():
                size, safe = path.stat().st_size, sizes.get(path.stat().st_ino, 0)
                if size > safe:
                    os.truncate(path, int(random.integers(safe, size + 1)))
