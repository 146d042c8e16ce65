"""Put this package's folders into a checkout of s3prl, and remove them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from ..errors import RunError
from ..utils.files import replacing, write_text
from ..utils.readers import read_json

MARK = ".s3prl-dphubert.json"
"""File in each folder created by :func:`link`, with the SHA-256 of every file that was put there."""

RECIPE = Path(__file__).parent / "dphubert"
UPSTREAM = {
    "__init__.py": '"""The folder upstream/dphubert of s3prl."""\n',
    "hubconf.py": (
        '"""Upstreams for the versions of s3prl that look for them in their own folders."""\n\n'
        "from s3prl_dphubert.upstream.entries import *  # noqa: F403\n"
    ),
}


def link(checkout: Path) -> list[str]:
    """Put ``pretrain/dphubert`` and ``upstream/dphubert``, which import this package, into a checkout.

    Files that were changed after an earlier call stay as they are.

    Returns:
        Lines that describe the changes.

    Raises:
        RunError: the folder is no checkout of s3prl, or has other folders of these names.
    """
    root = _root(checkout)
    folders = _folders()
    for name in folders:
        if (root / name).exists() and not (root / name / MARK).is_file():
            raise RunError(f"{root / name}: exists and was not put there by link; move it first")
    return [line for name, files in folders.items() for line in _put(root / name, files)]


def unlink(checkout: Path) -> list[str]:
    """Remove what :func:`link` put into a checkout; files added or changed since then stay.

    Returns:
        Lines that describe the changes.

    Raises:
        RunError: the folder is no checkout of s3prl, or :func:`link` put nothing there.
    """
    root = _root(checkout)
    linked = [root / name for name in _folders() if (root / name / MARK).is_file()]
    if not linked:
        raise RunError(f"{root}: holds nothing that link put there")
    return [line for folder in linked for line in _remove(folder)]


def _root(checkout: Path) -> Path:
    """Return the folder with ``run_pretrain.py``."""
    for root in (checkout, checkout / "s3prl"):
        if (root / "run_pretrain.py").is_file() and (root / "pretrain").is_dir():
            return root
    raise RunError(f"{checkout}: no checkout of s3prl, expected a folder with s3prl/run_pretrain.py")


def _folders() -> dict[str, dict[str, bytes]]:
    """Return the content of each file by folder and name."""
    recipe = {path.name: path.read_bytes() for path in sorted(RECIPE.iterdir()) if path.is_file()}
    return {
        "pretrain/dphubert": recipe,
        "upstream/dphubert": {name: text.encode() for name, text in UPSTREAM.items()},
    }


def _put(folder: Path, files: dict[str, bytes]) -> Iterator[str]:
    old_digests = _recorded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, content in files.items():
        path = folder / name
        if path.exists() and _hash(path.read_bytes()) != old_digests.get(name):
            yield f"{path}: was changed and stays"
            if name in old_digests:
                digests[name] = old_digests[name]
            continue
        with replacing(path) as partial:
            partial.write_bytes(content)
        digests[name] = _hash(content)
    write_text(folder / MARK, json.dumps(digests, indent=2) + "\n")
    yield f"{folder}: linked"


def _remove(folder: Path) -> Iterator[str]:
    for name, digest in _recorded(folder).items():
        path = folder / name
        if not path.is_file():
            continue
        if _hash(path.read_bytes()) == digest:
            path.unlink()
        else:
            yield f"{path}: was changed and stays"
    (folder / MARK).unlink()
    for compiled in folder.glob("__pycache__/*.pyc"):
        if not (folder / f"{compiled.name.split('.')[0]}.py").exists():
            compiled.unlink()
    for empty in (folder / "__pycache__", folder):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()
    yield f"{folder}: {'kept, since it holds other files' if folder.exists() else 'removed'}"


def _recorded(folder: Path) -> dict[str, str]:
    path = folder / MARK
    if not path.is_file():
        return {}
    values = read_json(path, RunError)
    return {name: digest for name, digest in values.items() if name == Path(name).name}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
