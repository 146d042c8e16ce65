"""Lists of files that s3prl keeps in its own folder, whatever corpus they were made from."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..utils.files import user_cache_dir
from ..utils.locking import waiting_lock
from .patch import Patch, swapped

FILES_A_PROCESS = 500  # fewer are measured before another process has started


def folder(task: str, root: str | Path, lists: Iterable[str | Path] = ()) -> Path:
    """The folder for what is remembered of one corpus; it exists afterwards."""
    found = user_cache_dir() / task / digest(root, lists)[:32]
    found.mkdir(parents=True, exist_ok=True)
    return found


def digest(root: str | Path, lists: Iterable[str | Path] = ()) -> str:
    """Tells corpora apart.

    It changes with the corpus's place, the content of its lists of files, and the names and times of
    its folders down to the speakers.
    """
    told = hashlib.sha256(os.path.realpath(root).encode())
    for path in lists:
        told.update(Path(path).read_bytes())
    for path in sorted(_folders(Path(root), depth=3)):
        told.update(f"{path}\0{os.stat(path).st_mtime_ns}\n".encode())
    return told.hexdigest()


def _folders(root: Path, depth: int) -> Iterable[str]:
    if depth and root.is_dir():
        yield str(root)
        for entry in os.scandir(root):
            if entry.is_dir():
                yield from _folders(Path(entry.path), depth - 1)


def _sid(dataset: Any) -> None:
    init = dataset.SpeakerClassifiDataset.__init__

    @functools.wraps(init)
    def per_corpus(self, mode, file_path, meta_data, *args, **kwargs):
        kept = folder("sid", file_path, [meta_data])
        dataset.CACHE_PATH = str(kept)
        with waiting_lock(kept / f"{mode}.lock"):  # a second process must not read half a list
            init(self, mode, file_path, meta_data, *args, **kwargs)

    dataset.SpeakerClassifiDataset.__init__ = per_corpus


def _asv(dataset: Any) -> None:
    init = dataset.SpeakerVerifi_train.__init__

    @functools.wraps(init)
    def per_corpus(self, vad_config, key_list, file_path, meta_data, max_timestep=None, n_jobs=None):
        kept = folder("asv", os.path.commonpath([os.path.realpath(root) for root in file_path]))
        files = sum(len(names) for root in file_path for _, _, names in os.walk(root))
        jobs = n_jobs or min(12, os.cpu_count() or 1, 1 + files // FILES_A_PROCESS)
        place = str(kept / "dataset.py")  # s3prl puts its folder beside this name
        with swapped(dataset, "__file__", place), waiting_lock(kept / "lengths.lock"):
            init(self, vad_config, key_list, file_path, meta_data, max_timestep, jobs)

    dataset.SpeakerVerifi_train.__init__ = per_corpus


def _sid_beside(dataset: Any) -> bool:
    return Path(dataset.CACHE_PATH).resolve().parent == Path(dataset.__file__ or "").resolve().parent


def _asv_beside(dataset: Any) -> bool:
    return "dirname(__file__)" in inspect.getsource(dataset.SpeakerVerifi_train.__init__)


PATCHES = (
    Patch(
        name="voxceleb1 file lists",
        module="s3prl.downstream.voxceleb1.dataset",
        reason="SID serves the file lists of the first corpus it ever saw, from s3prl's own folder",
        versions="s3prl 0.4.18; until CACHE_PATH depends on the corpus",
        needed=_sid_beside,
        apply=_sid,
    ),
    Patch(
        name="sv_voxceleb1 lengths",
        module="s3prl.downstream.sv_voxceleb1.dataset",
        reason="ASV serves the lengths of the first corpus it ever saw, from s3prl's own folder, and "
        "measures with 12 processes on any machine",
        versions="s3prl 0.4.18; until the place of the lengths depends on the corpus",
        needed=_asv_beside,
        apply=_asv,
    ),
)
