"""A step of preparation: made once per corpus, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compat import file_lists
from ...compression.run_directory import sweep
from ...errors import DataError
from ...utils.files import write_text
from ...utils.hashing import sha256_file
from ...utils.locking import waiting_lock

Config = Mapping[str, Any]
"""What run_downstream takes as ``-c``, with its places filled in."""


@dataclass(frozen=True)
class Step:
    """What turns a corpus, as its publisher gives it, into what s3prl reads.

    Args:
        name: key in the registry; as ``prepare`` of a ``recipe.yaml`` has it.
        make: writes files and folders into an empty folder: ``make(data, folder, config)``.
        inputs: what they are made from: folders and files, which may be missing, and plain values.
        version: raised when the same inputs have to give something else.
    """

    name: str
    make: Callable[[Path, Path, Config], None]
    inputs: Callable[[Path, Config], Iterable[Path | str]]
    version: int = 1

    def __call__(self, data: Path, out: Path, config: Config) -> None:
        """Make what is missing; return at once where the same corpus was prepared before.

        A process that is killed leaves nothing that another one takes for whole; one that comes
        while another is at work waits for it.

        Args:
            data: the folder of all corpora.
            out: the folder for what is made; those of several steps may share it.
            config: names the places of the corpus.

        Raises:
            DataError: something is missing; the message names its path and where to get it.
        """
        out.mkdir(parents=True, exist_ok=True)
        key, mark, fresh = self._key(data, config), out / f".{self.name}.json", out / f".{self.name}.part"
        with waiting_lock(out / f".{self.name}.lock"):
            shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed, as are these
            for leftover in out.glob(f".{mark.name}.*.part"):
                leftover.unlink()
            if self._made(mark, key):
                return
            fresh.mkdir()
            try:
                self.make(data, fresh, config)
                _put(fresh, out, mark, key)
            except OSError as error:
                raise DataError(f"{out}: {self.name} cannot be prepared ({error})") from error
            finally:
                shutil.rmtree(fresh, ignore_errors=True)

    def _key(self, data: Path, config: Config) -> str:
        digest = hashlib.sha256(f"{self.name} {self.version}\n".encode())
        for each in self.inputs(data, config):
            digest.update(f"{_fingerprint(each) if isinstance(each, Path) else each}\n".encode())
        return digest.hexdigest()

    def _made(self, mark: Path, key: str) -> bool:
        try:
            known = json.loads(mark.read_text(encoding="utf8"))
            made = known["made"].items()
            return known["key"] == key and all(
                (mark.parent / name).stat().st_size == size for name, size in made
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


def _fingerprint(path: Path) -> str:
    """Changes with a file's place and content, or a folder's place and folders."""
    if path.is_dir():
        return file_lists.digest(path)
    if path.is_file():
        return f"{os.path.realpath(path)} {sha256_file(path)}"
    return f"{os.path.realpath(path)} missing"


def _put(fresh: Path, out: Path, mark: Path, key: str) -> None:
    """Move what was made into place; the mark goes first and comes last."""
    mark.unlink(missing_ok=True)
    sweep(fresh)
    made = {str(path.relative_to(fresh)): path.stat().st_size for path in fresh.rglob("*") if path.is_file()}
    for entry in list(fresh.iterdir()):
        old = out / entry.name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        os.replace(entry, old)
    write_text(mark, json.dumps({"key": key, "made": made}))
