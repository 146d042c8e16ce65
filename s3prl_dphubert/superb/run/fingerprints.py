"""Digests of the file lists that a result depends on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...utils.hashing import sha256_file, sha256_tree
from ...utils.readers import read_record

LARGEST_LIST = 64_000_000  # bytes; larger files, such as language models, hold no paths
AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus")


def digests(
    config: Mapping[str, Any],
    own: Iterable[Path],
    more: Iterable[Path] = (),
    places: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the digests of the files that a configuration names, and of its folders of our own.

    Of corpora the audio counts by :mod:`.corpus`; in folders of our own audio does not count, nor what s3prl
    adds to them.

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
    roots = {str(path): _made(path) for path in own}
    digests: dict[str, str] = {}
    for text in (*_strings(config), *map(str, more)):
        path = Path(text)
        if not path.is_absolute():
            continue
        files, root = [path] if path.is_file() else [], path.parent
        owner = next((each for each in roots if text == each or text.startswith(f"{each}/")), None)
        if path.is_dir() and owner is not None:
            made, root = roots[owner], path
            files = [file for file in _listed_files(path) if made is None or file in made]
        if files:
            digests[os.fsdecode(_unfilled(os.fsencode(text), places))] = _digest(files, root, places)
    return digests


def _made(folder: Path) -> set[Path] | None:
    """Return the files that preparation has made in a folder; s3prl may add others while it trains.

    Returns:
        ``None`` for a folder that holds no record of a preparation.
    """
    records = [read_record(path).get("made") for path in folder.glob(".*.json")]
    files = {folder / name for made in records if isinstance(made, dict) for name in made}
    return files or None


def _digest(files: Iterable[Path], root: Path, places: Mapping[str, str] | None) -> str:
    """Return the SHA-256 of paths and contents of files, with placeholders."""

    def content(path: Path) -> str:
        if path.stat().st_size > LARGEST_LIST:
            return sha256_file(path)
        return hashlib.sha256(_unfilled(path.read_bytes(), places)).hexdigest()

    return sha256_tree(root, files, content)


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
