"""Total duration of a task's audio, from its lists of files and the headers of these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...data.audio import probe
from ...errors import DataError
from ...utils.files import user_cache_dir, write_text
from ..tasks.spec import SuperbTask

Config = Mapping[str, Any]
HEADERS = 8  # read at once; what they wait for is the disk


def seconds(task: SuperbTask, config: Config) -> float:
    """Return the seconds of audio in a task's training and evaluation, each utterance counted once.

    Raises:
        DataError: the lists of files cannot be read, or a file has no header of audio.
    """
    if task.audio is None:
        raise DataError(f"{task.name}: how much audio it has cannot be told from its configuration")
    try:
        listed = list(task.audio(config))
    except DataError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__} {error}"
        raise DataError(f"{task.name}: the lists of its audio cannot be read ({reason})") from error
    files = sorted({each for each in listed if isinstance(each, Path)})
    return measure(files, task.name) + sum(each for each in listed if not isinstance(each, Path))


def measure(files: list[Path], what: str = "audio") -> float:
    """Return the seconds of files by their headers, and keep the sum in the user's cache.

    Raises:
        DataError: a file is missing or no audio.
    """
    if not files:
        return 0.0
    times = sorted((str(folder), folder.stat().st_mtime_ns) for folder in {file.parent for file in files})
    content = json.dumps([times, [str(file) for file in files]])
    cached = user_cache_dir() / "seconds" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"
    try:
        return float(json.loads(cached.read_text(encoding="utf8")))
    except (OSError, ValueError):
        pass
    with ThreadPoolExecutor(HEADERS) as pool:
        bar = tqdm(pool.map(probe, files), desc=f"{what}: headers", total=len(files), unit="file")
        total = sum(info.samples / info.rate for info in bar)
    cached.parent.mkdir(parents=True, exist_ok=True)
    write_text(cached, json.dumps(total))
    return total
