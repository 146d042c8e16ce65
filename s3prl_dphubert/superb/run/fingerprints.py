"""The lists of files that a result depends on, told apart by their content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...utils.hashing import sha256_file, sha256_tree

AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".opus")


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
            found[text] = sha256_file(path)
        elif path.is_dir() and any(text == root or text.startswith(f"{root}/") for root in roots):
            found[text] = _folder(path)
    return found


def _folder(place: Path) -> str:
    files = (path for path in sorted(place.rglob("*")) if path.is_file() and path.suffix not in AUDIO)
    shown = (path for path in files if not any(p.startswith(".") for p in path.relative_to(place).parts))
    return sha256_tree(place, shown)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value
