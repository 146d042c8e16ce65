"""The lists of files that a result depends on, told apart by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus")
_CHUNK = 1 << 20


def digests(config: Mapping[str, Any], own: Iterable[Path], more: Iterable[Path] = ()) -> dict[str, str]:
    """Digests of the files that a configuration names, and of all but audio in folders of our own.

    Args:
        config: with its places filled in.
        own: folders whose content counts where the configuration names them or a folder in them.
        more: files that count, too, without being named; others are left out.

    Returns:
        Path -> digest. Corpora themselves are not read: it would take hours.
    """
    roots = [str(path) for path in own]
    found: dict[str, str] = {}
    for text in (*_strings(config), *map(str, more)):
        path = Path(text)
        if not path.is_absolute():
            continue
        if path.is_file():
            found[text] = _digest(path)
        elif path.is_dir() and any(text == root or text.startswith(f"{root}/") for root in roots):
            found[text] = _folder(path)
    return found


def _folder(place: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        relative = path.relative_to(place)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and path.suffix not in AUDIO and not hidden:
            digest.update(f"{relative} {_digest(path)}\n".encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value
