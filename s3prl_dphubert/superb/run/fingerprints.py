"""Digests of the file lists that a result depends on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...utils.hashing import sha256_file

LARGEST_LIST = 64_000_000  # bytes; larger files, such as language models, hold no paths
AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus")


def digests(
    config: Mapping[str, Any],
    own: Iterable[Path],
    more: Iterable[Path] = (),
    places: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the digests of the files that a configuration names, and of its folders of our own.

    Of corpora the audio counts by :mod:`.corpus`; in folders of our own audio does not count.

    Args:
        config: with its placeholders filled in.
        own: folders that this package made; they count where the configuration names them or a folder in
            them.
        more: paths that count too without being named, if they are files.
        places: path -> placeholder, by which it is replaced in paths and in the content of files, so that
            moved folders give the same digests.

    Returns:
        Absolute path, or one with a placeholder -> SHA-256.
    """
    roots = [str(path) for path in own]
    digests: dict[str, str] = {}
    for text in (*_strings(config), *map(str, more)):
        path = Path(text)
        if not path.is_absolute():
            continue
        if path.is_file():
            digests[os.fsdecode(_unfilled(os.fsencode(text), places))] = _digest([path], path.parent, places)
        elif path.is_dir() and any(text == root or text.startswith(f"{root}/") for root in roots):
            digest = _digest(_listed_files(path), path, places)
            digests[os.fsdecode(_unfilled(os.fsencode(text), places))] = digest
    return digests


def _digest(files: Iterable[Path], root: Path, places: Mapping[str, str] | None) -> str:
    """Return the SHA-256 of paths and contents of files, with placeholders."""
    digest = hashlib.sha256()
    for path in files:
        is_list = path.stat().st_size <= LARGEST_LIST
        content = (
            hashlib.sha256(_unfilled(path.read_bytes(), places)).hexdigest() if is_list else sha256_file(path)
        )
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _unfilled(text: bytes, places: Mapping[str, str] | None) -> bytes:
    for path in sorted(places or (), key=len, reverse=True):  # the longest first: one may be in another
        text = text.replace(os.fsencode(path), (places or {})[path].encode())
    return text


def _listed_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and path.suffix not in AUDIO and not hidden:
            yield path


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value
