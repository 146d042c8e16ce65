"""Digests of the file lists that a result depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...utils.hashing import sha256_file, sha256_tree

AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus")


def digests(config: Mapping[str, Any], own: Iterable[Path], more: Iterable[Path] = ()) -> dict[str, str]:
    """Return the digests of the files that a configuration names, and of its folders of our own.

    Corpora themselves are not read, which would take hours; in folders of our own audio does not count.

    Args:
        config: with its placeholders filled in.
        own: folders that this package made; they count where the configuration names them or a folder in
            them.
        more: paths that count too without being named, if they are files.

    Returns:
        Absolute path -> SHA-256.
    """
    roots = [str(path) for path in own]
    digests: dict[str, str] = {}
    for text in (*_strings(config), *map(str, more)):
        path = Path(text)
        if not path.is_absolute():
            continue
        if path.is_file():
            digests[text] = sha256_file(path)
        elif path.is_dir() and any(text == root or text.startswith(f"{root}/") for root in roots):
            digests[text] = sha256_tree(path, _listed_files(path))
    return digests


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
