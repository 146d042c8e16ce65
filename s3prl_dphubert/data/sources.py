"""Search for audio in folders, files, tar shards, globs, brace patterns and URLs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import DataError
from . import remote_files
from .audio import SUFFIXES
from .shards import COMPRESSED, SUFFIX, is_shard

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)
MAX_NAMES = 100_000  # names that one pattern may stand for


def find(sources: Sequence[str | Path]) -> list[str]:
    """List audio files and tar shards.

    Args:
        sources: folders, which are searched recursively; files; globs; brace patterns such as
            ``train-{000..031}.tar``; any of them as a URL that fsspec supports.

    Returns:
        Absolute paths and URLs, each once, sorted.

    Raises:
        DataError: a source does not exist, holds no audio or is a compressed tar.
    """
    paths: set[str] = set()
    for source in map(str, sources):
        for pattern in expand(source) if not os.path.exists(source) else [source]:
            files = _remote(pattern) if remote_files.is_url(pattern) else _local(pattern)
            usable = {path for path in files if _suffix(path) in SUFFIXES or is_shard(path)}
            if not usable:
                raise _no_audio(pattern, files)
            paths |= usable
    once: dict[str, str] = {}
    for path in sorted(paths):
        once.setdefault(path if remote_files.is_url(path) else os.path.realpath(path), path)
    return list(once.values())


def expand(pattern: str) -> list[str]:
    """Expand a brace pattern as a shell does: ``{a,b}`` and ``{08..11}``.

    Raises:
        DataError: it stands for more than :data:`MAX_NAMES` names.
    """
    match = BRACES.search(pattern)
    if not match:
        return [pattern]
    numbers = RANGE.fullmatch(match[1])
    parts: Sequence[str] = match[1].split(",")
    if numbers:
        low, high = int(numbers[1]), int(numbers[2])
        step = 1 if low <= high else -1
        width = max(map(len, numbers.groups())) if numbers[1].startswith("0") or numbers[2][0] == "0" else 0
        if abs(high - low) >= MAX_NAMES:
            raise DataError(f"{pattern}: stands for too many names, allowed: {MAX_NAMES}")
        parts = [f"{number:0{width}}" for number in range(low, high + step, step)]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    names = [name for part in parts for name in expand(f"{head}{part}{tail}")]
    if len(names) > MAX_NAMES:
        raise DataError(f"{pattern}: stands for too many names, allowed: {MAX_NAMES}")
    return list(dict.fromkeys(names))


def _local(pattern: str) -> list[str]:
    """List the absolute paths of a file, of all files below a folder, or of all that match a glob."""
    names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not names:
        raise DataError(f"{pattern}: no such folder or file")
    files = [file for name in names for file in (_walk(name) if os.path.isdir(name) else [name])]
    return [os.path.abspath(file) for file in files]


def _remote(url: str) -> list[str]:
    """List the URLs of all files that a URL stands for; local files as plain paths."""
    if url.lower().startswith("file://"):
        return _local(url[len("file://") :])
    with remote_files.readable(url):
        # A single file is not looked up: for many shards that would be many requests.
        is_file = _suffix(url) in {*SUFFIXES, SUFFIX} and not remote_files.MAGIC.search(url)
        return [url] if is_file else remote_files.listing(url)


def _walk(folder: str) -> Iterator[str]:
    """Yield the files below a folder; links are followed, but no folder is entered twice, so loops end."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        paths = (os.path.join(root, name) for name in sorted(names))
        yield from (path for path in paths if os.path.isfile(path) or not os.path.exists(path))


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _no_audio(pattern: str, files: Sequence[str]) -> DataError:
    compressed = next((path for path in files if COMPRESSED.search(path)), None)
    if compressed:
        return DataError(f"{compressed}: compressed shards have no random access; uncompress it to a .tar")
    suffixes = ", ".join(sorted({*SUFFIXES, SUFFIX}))
    return DataError(f"{pattern}: holds no audio, searched for {suffixes}")
