"""Where audio is searched for: folders, files, tar shards, globs, brace patterns and URLs."""

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
MOST = 100_000  # names that one pattern may stand for


def find(sources: Sequence[str | Path]) -> list[str]:
    """Audio files and tar shards, each once, sorted, as absolute paths or URLs.

    Args:
        sources: folders, searched recursively; files; globs; brace patterns such as
            ``train-{000..031}.tar``; any of them as a URL that fsspec knows.

    Raises:
        DataError: a source does not exist, holds no audio or is a compressed tar.
    """
    paths: set[str] = set()
    for source in map(str, sources):
        for pattern in expand(source) if not os.path.exists(source) else [source]:
            found = _remote(pattern) if remote_files.is_url(pattern) else _local(pattern)
            usable = {path for path in found if _suffix(path) in SUFFIXES or is_shard(path)}
            if not usable:
                raise _nothing(pattern, found)
            paths |= usable
    once: dict[str, str] = {}
    for path in sorted(paths):
        once.setdefault(path if remote_files.is_url(path) else os.path.realpath(path), path)
    return list(once.values())


def expand(pattern: str) -> list[str]:
    """Names that a brace pattern stands for, as in a shell: ``{a,b}`` and ``{08..11}``.

    Raises:
        DataError: they are more than ``MOST``.
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
        if abs(high - low) >= MOST:
            raise DataError(f"{pattern}: stands for too many names, allowed: {MOST}")
        parts = [f"{number:0{width}}" for number in range(low, high + step, step)]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    names = [name for part in parts for name in expand(f"{head}{part}{tail}")]
    if len(names) > MOST:
        raise DataError(f"{pattern}: stands for too many names, allowed: {MOST}")
    return list(dict.fromkeys(names))


def _local(pattern: str) -> list[str]:
    """Absolute paths of all files that a folder, a file or a glob stands for."""
    names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    if not names:
        raise DataError(f"{pattern}: no such folder or file")
    found = [file for name in names for file in (_walk(name) if os.path.isdir(name) else [name])]
    return [os.path.abspath(file) for file in found]


def _remote(url: str) -> list[str]:
    """URLs of all files that a URL stands for; files of this machine as plain paths."""
    if url.lower().startswith("file://"):
        return _local(url[len("file://") :])
    with remote_files.readable(url):
        # A file is not asked for: of many shards that would be many requests.
        plain = _suffix(url) in {*SUFFIXES, SUFFIX} and not remote_files.MAGIC.search(url)
        return [url] if plain else remote_files.listing(url)


def _walk(folder: str) -> Iterator[str]:
    """Files below a folder; links are followed, but no folder is entered twice, so loops end."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (os.path.join(root, name) for name in sorted(names))


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _nothing(pattern: str, found: Sequence[str]) -> DataError:
    packed = next((path for path in found if COMPRESSED.search(path)), None)
    if packed:
        return DataError(f"{packed}: compressed shards have no random access; uncompress it to a .tar")
    wanted = ", ".join(sorted({*SUFFIXES, SUFFIX}))
    return DataError(f"{pattern}: holds no audio, searched for {wanted}")
