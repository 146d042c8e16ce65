"""Lists of files that s3prl makes of a corpus: one cache folder per corpus, and no hidden files."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..utils.files import is_hidden, private_cache_dir
from ..utils.locking import waiting_lock
from .patch import Patch, swapped, wrap

FILES_PER_PROCESS = 500  # fewer are measured before another process has started


def folder(task: str, root: str | Path, lists: Iterable[str | Path] = ()) -> Path:
    """Return the cache folder of one corpus, created if missing; for the arguments see :func:`digest`.

    Raises:
        RunError: it belongs to another user.
    """
    return private_cache_dir(task, digest(root, lists)[:32])


def digest(root: str | Path, lists: Iterable[str | Path] = ()) -> str:
    """Return a digest that tells corpora apart.

    It changes with the location of the corpus, the content of its lists of files, and the names and
    modification times of its folders down to those of the speakers.

    Args:
        root: folder of the corpus.
        lists: its lists of files.
    """
    sha256 = hashlib.sha256(os.path.realpath(root).encode())
    for path in lists:
        sha256.update(Path(path).read_bytes())
    for path in sorted(_folders(Path(root), depth=3)):
        sha256.update(f"{path}\0{os.stat(path).st_mtime_ns}\n".encode())
    return sha256.hexdigest()


def _folders(root: Path, depth: int) -> Iterable[str]:
    if depth and root.is_dir():
        yield str(root)
        for entry in os.scandir(root):
            if entry.is_dir():
                yield from _folders(Path(entry.path), depth - 1)


def _sid_lists_in_package(dataset: Any) -> bool:
    return Path(dataset.CACHE_PATH).resolve().parent == Path(dataset.__file__ or "").resolve().parent


def _sid_lists_per_corpus(dataset: Any) -> None:
    def init(original, self, mode, file_path, meta_data, *args, **kwargs):
        cache = folder("sid", file_path, [meta_data])
        dataset.CACHE_PATH = str(cache)
        with waiting_lock(cache / f"{mode}.lock"):  # a second process must not read half a list
            try:
                original(self, mode, file_path, meta_data, *args, **kwargs)
            except IndexError as error:  # of the file that it did not find it says nothing
                raise DataError(f"{_first_missing(file_path, meta_data)}: no such file") from error

    wrap(dataset.SpeakerClassifiDataset, "__init__", init)


def _first_missing(root: str | Path, listed: str | Path) -> str:
    """Return the first file of VoxCeleb1's list that is in neither of its parts."""
    names = (line.split()[1] for line in Path(listed).read_text(encoding="utf8").splitlines())
    return next((f"{root}/*/wav/{name}" for name in names if not any(Path(root).glob(f"*/wav/{name}"))), "")


def _lists_hidden_words(dataset: Any) -> bool:
    return "startswith" not in inspect.getsource(dataset.SpeechCommandsTestingDataset)


def _pass_over_hidden_words(dataset: Any) -> None:
    def init(original, self, *args, **kwargs):
        original(self, *args, **kwargs)
        visible = [(name, path) for name, path in self.data if not is_hidden(Path(Path(path).name))]
        if len(visible) < len(self.data):
            self.data = visible
            if hasattr(self, "sample_weights"):
                counts = Counter(name for name, _ in visible)
                self.sample_weights = [len(visible) / counts[name] for name, _ in visible]

    wrap(dataset.SpeechCommandsDataset, "__init__", init)
    wrap(dataset.SpeechCommandsTestingDataset, "__init__", init)


def _asv_lengths_in_package(dataset: Any) -> bool:
    return "dirname(__file__)" in inspect.getsource(dataset.SpeakerVerifi_train.__init__)


def _asv_lengths_per_corpus(dataset: Any) -> None:
    def init(original, self, vad_config, key_list, file_path, meta_data, max_timestep=None, n_jobs=None):
        cache = folder("asv", os.path.commonpath([os.path.realpath(root) for root in file_path]))
        files = sum(len(names) for root in file_path for _, _, names in os.walk(root))
        jobs = n_jobs or min(12, os.cpu_count() or 1, 1 + files // FILES_PER_PROCESS)
        beside = str(cache / "dataset.py")  # s3prl puts its folder of lengths beside its own module
        with swapped(dataset, "__file__", beside), waiting_lock(cache / "lengths.lock"):
            original(self, vad_config, key_list, file_path, meta_data, max_timestep, jobs)

    wrap(dataset.SpeakerVerifi_train, "__init__", init)


PATCHES = (
    Patch(
        name="voxceleb1 file lists",
        module="s3prl.downstream.voxceleb1.dataset",
        reason="SID uses the file lists of the first corpus it ever read, cached in s3prl's own folder",
        versions="s3prl 0.4.18; until CACHE_PATH depends on the corpus",
        needed=_sid_lists_in_package,
        apply=_sid_lists_per_corpus,
    ),
    Patch(
        name="sv_voxceleb1 lengths",
        module="s3prl.downstream.sv_voxceleb1.dataset",
        reason="ASV uses the lengths of the first corpus it ever read, cached in s3prl's own folder, and "
        "starts 12 processes on any machine to measure them",
        versions="s3prl 0.4.18; until the location of the lengths depends on the corpus",
        needed=_asv_lengths_in_package,
        apply=_asv_lengths_per_corpus,
    ),
    Patch(
        name="speech_commands hidden files",
        module="s3prl.downstream.speech_commands.dataset",
        reason="KS takes the ._*.wav that macOS leaves beside files for words, and fails at one of them",
        versions="s3prl 0.4.18; until its lists leave out names that begin with a dot",
        needed=_lists_hidden_words,
        apply=_pass_over_hidden_words,
    ),
)
