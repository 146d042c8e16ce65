"""A step of preparation: done once for each corpus, completely or not at all."""

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
from ...errors import DataError
from ...utils.files import remove_partial, write_text
from ...utils.hashing import sha256_file
from ...utils.locking import waiting_lock
from ...utils.readers import read_record

Config = Mapping[str, Any]
"""Configuration of run_downstream (``-c``), with its placeholders filled in."""


@dataclass(frozen=True)
class PreparationStep:
    """Makes files that s3prl reads from a corpus as its publisher gives it.

    Args:
        name: key in the registry and in ``prepare`` of a ``recipe.yaml``.
        make: writes files and folders into an empty folder: ``make(data, folder, config)``.
        inputs: files and folders, which may be missing, and plain values that the result depends on.
        version: to be raised when the same inputs have to give another result.
        quick: only writes lists, in seconds, so that a check of the corpus may do it first.
    """

    name: str
    make: Callable[[Path, Path, Config], None]
    inputs: Callable[[Path, Config], Iterable[Path | str]]
    version: int = 1
    quick: bool = False

    def __call__(self, data: Path, out: Path, config: Config) -> None:
        """Do the step, or return at once if it was done with the same inputs.

        A killed process leaves nothing that another one takes for complete. Of several processes, one does
        the step while the others wait.

        Args:
            data: folder of all corpora.
            out: folder for the results, which several steps may share.
            config: names the places of the corpus.

        Raises:
            DataError: a file is missing; the message names its path and where to get it.
        """
        out.mkdir(parents=True, exist_ok=True)
        key, mark, made = self._key(data, config), self._mark(out), out / f".{self.name}.part"
        with waiting_lock(out / f".{self.name}.lock"):
            shutil.rmtree(made, ignore_errors=True)  # left by a killed process, as are these
            for leftover in out.glob(f".{mark.name}.*.part"):
                leftover.unlink()
            if _is_done(mark, key):
                return
            made.mkdir()
            try:
                self.make(data, made, config)
                _move_into_place(made, out, mark, key)
            except OSError as error:
                raise DataError(f"{out}: {self.name} cannot be prepared ({error})") from error
            finally:
                shutil.rmtree(made, ignore_errors=True)

    def is_done(self, data: Path, out: Path, config: Config) -> bool:
        """Return whether a call with these arguments would return at once."""
        return _is_done(self._mark(out), self._key(data, config))

    def _mark(self, out: Path) -> Path:
        return out / f".{self.name}.json"

    def _key(self, data: Path, config: Config) -> str:
        digest = hashlib.sha256(f"{self.name} {self.version}\n".encode())
        for each in self.inputs(data, config):
            digest.update(f"{_fingerprint(each) if isinstance(each, Path) else each}\n".encode())
        return digest.hexdigest()


def _is_done(mark: Path, key: str) -> bool:
    """Return whether the files that a mark lists are there, with their sizes, and of the same inputs."""
    recorded = read_record(mark)
    try:
        sizes = recorded["made"].items()
        return recorded["key"] == key and all(
            (mark.parent / name).stat().st_size == size for name, size in sizes
        )
    except (OSError, KeyError, TypeError, AttributeError):
        return False


def _fingerprint(path: Path) -> str:
    """Return a text that changes with location and content of a file, or with the tree of a folder."""
    if path.is_dir():
        return file_lists.digest(path)
    return f"{os.path.realpath(path)} {sha256_file(path) if path.is_file() else 'missing'}"


def _move_into_place(made: Path, out: Path, mark: Path, key: str) -> None:
    """Replace earlier results; the mark is removed first and written last."""
    mark.unlink(missing_ok=True)
    remove_partial(made)
    sizes = {str(path.relative_to(made)): path.stat().st_size for path in made.rglob("*") if path.is_file()}
    for entry in list(made.iterdir()):
        target = out / entry.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        os.replace(entry, target)
    write_text(mark, json.dumps({"key": key, "made": sizes}))
