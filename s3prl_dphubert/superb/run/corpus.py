"""Check the audio of a task before anything is trained: every file is there, decodable and whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...data.audio import probe_whole
from ...errors import DataError
from ...utils.files import user_cache_dir, write_text
from ...utils.readers import read_record
from ..tasks.spec import SuperbTask

Config = Mapping[str, Any]
THREADS = 16  # files read at once; what they wait for is the disk
VERSION = 1  # to be raised when the same files have to give another result
ANY_COUNT = "complete the corpus, or accept it with --any-count, without a place in the score"
TARGETS = "targets"  # end of the names of splits that no hidden states are computed of


class ListsError(DataError):
    """The lists of a task's audio cannot be read."""


@dataclass(frozen=True)
class SplitAudio:
    """Audio files of a split.

    Args:
        files: number of files, each counted once.
        seconds: their total duration by their headers.
        sha256: of their paths below the folder that they share, their sizes and their lengths.
        short: what is missing of files that end before their header says.
    """

    files: int
    seconds: float
    sha256: str
    short: tuple[str, ...] = ()


@dataclass(frozen=True)
class CorpusCheck:
    """Result of the check of a task's audio.

    Args:
        splits: name -> what it holds.
        deviations: how the corpus differs from SUPERB's, though it could be trained on.
    """

    splits: Mapping[str, SplitAudio]
    deviations: tuple[str, ...] = ()

    @property
    def key(self) -> dict[str, dict[str, Any]]:
        """Split -> number of files, seconds and digest, on which every result depends."""
        return {
            name: {"files": split.files, "seconds": round(split.seconds, 3), "sha256": split.sha256[:16]}
            for name, split in self.splits.items()
        }

    @property
    def files(self) -> int:
        """Number of files of all splits."""
        return sum(split.files for split in self.splits.values())


def check(task: SuperbTask, config: Config, counts: Mapping[str, int] | None = None) -> CorpusCheck:
    """Check all audio of a task, test sets first, and keep the result in the user's cache.

    Args:
        task: the task.
        config: its configuration for s3prl with all places filled in.
        counts: split -> number of files that SUPERB has.

    Raises:
        ListsError: the lists of files cannot be read.
        DataError: a file is missing, no audio or not finite. The
            message names the first of each split and the number of the others.
    """
    listed = list_audio(task, config)
    order = sorted(listed, key=lambda name: (not name.startswith(("test", "eval")), "train" in name))
    splits, faults, deviations = {}, [], []
    for name in order:
        files = listed[name]
        try:
            splits[name] = measure(files, f"{task.name} {name}".strip())
        except DataError as error:
            faults.append(f"{name}: {error}" if name else str(error))
            continue
        expected = (counts or {}).get(name, splits[name].files)
        if splits[name].files != expected:
            deviations.append(f"{name} has {splits[name].files} files, SUPERB's has {expected}")
        if short := splits[name].short:
            more = f" and {len(short) - 1} more" if len(short) > 1 else ""
            deviations.append(f"{name} has files that are cut short: {short[0]}{more}")
    if faults:
        raise DataError("; ".join(faults))
    return CorpusCheck(splits, tuple(deviations))


def list_audio(task: SuperbTask, config: Config) -> dict[str, list[Path]]:
    """Return the audio files of each split of a task, each once and sorted.

    Raises:
        ListsError: the lists of files cannot be read.
    """
    if task.audio is None:
        raise ListsError(f"{task.name}: how much audio it has cannot be told from its configuration")
    try:
        listed = task.audio(config)
        splits = listed if isinstance(listed, Mapping) else {"": listed}
        return {name: sorted(set(files)) for name, files in splits.items()}
    except DataError as error:
        raise ListsError(f"{task.name}: the lists of its audio cannot be read ({error})") from error
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        reason = f"{type(error).__name__} {error}"
        raise ListsError(f"{task.name}: the lists of its audio cannot be read ({reason})") from error


def seconds(task: SuperbTask, config: Config) -> float:
    """Return the seconds of audio whose hidden states a task computes again and again.

    Each utterance counts once. Where training crops its waveforms, only the test set is counted.

    Raises:
        DataError: as for :func:`check`.
    """
    listed = list_audio(task, config)
    if task.audio is not None and not task.reuse.training:
        listed = {name: files for name, files in listed.items() if name == "test"}
    total, counted = 0.0, set[Path]()
    for name, files in listed.items():
        if not name.endswith(TARGETS):  # by splits, whose headers the check has read
            total += measure([file for file in files if file not in counted], task.name).seconds
            counted.update(files)
    return total


def measure(files: Sequence[Path], title: str = "audio") -> SplitAudio:
    """Read the headers of files, or what an earlier call has found out about the same files.

    Args:
        files: sorted paths.
        title: of the progress bar.

    Raises:
        DataError: naming the first file that is missing or no audio, and the number of the others.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        stats = list(pool.map(_stat, files))
        if missing := [file for file, stat in zip(files, stats, strict=True) if stat is None]:
            raise DataError(f"{_first(missing)}: no such file, though the corpus's lists name it")
        key = json.dumps([VERSION, *((str(f), *s) for f, s in zip(files, stats, strict=True) if s)])
        cached = user_cache_dir() / "audio" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        try:
            recorded = read_record(cached)
            return SplitAudio(**{**recorded, "short": tuple(recorded["short"])})
        except (KeyError, TypeError):
            pass
        bar = tqdm(
            pool.map(_probe, files), desc=f"{title}: headers", total=len(files), unit="file", mininterval=1
        )
        headers = list(bar)
    if faults := [fault for *_, fault in headers if fault]:
        more = f"; and {len(faults) - 1} more such files" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")
    split = _summarize(files, [stat[0] for stat in stats if stat], headers)
    cached.parent.mkdir(parents=True, exist_ok=True)
    write_text(cached, json.dumps(asdict(split)))
    return split


def _summarize(
    files: Sequence[Path], sizes: Iterable[int], headers: Sequence[tuple[int, int, str, str]]
) -> SplitAudio:
    root = os.path.commonpath([file.parent for file in files]) if files else ""
    digest, total = hashlib.sha256(), 0.0
    for file, size, (samples, rate, _, _) in zip(files, sizes, headers, strict=True):
        digest.update(f"{os.path.relpath(file, root)} {size} {samples}\n".encode("utf8", "surrogateescape"))
        total += samples / rate
    short = tuple(f"{file}: {text}" for file, (*_, text, _) in zip(files, headers, strict=True) if text)
    return SplitAudio(len(files), total, digest.hexdigest(), short)


def _stat(file: Path) -> tuple[int, int] | None:
    """Return size in bytes and time of the last change; ``None`` if there is no such file."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _probe(file: Path) -> tuple[int, int, str, str]:
    """Return samples, rate in Hz, what is missing at the end, and why the file cannot be used."""
    try:
        info, short = probe_whole(file)
    except DataError as error:
        return 0, 1, "", str(error)
    return info.samples, info.rate, short, ""


def _first(files: Sequence[Path]) -> str:
    return f"{files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''}"
