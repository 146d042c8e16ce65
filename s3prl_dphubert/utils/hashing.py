"""Digests of files and models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 20  # bytes read at once


def update(digest: Any, path: Path) -> None:
    """Feed the content of a file to a ``hashlib`` object."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)


def sha256_file(*paths: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, or of several files one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        update(digest, path)
    return digest.hexdigest()


def sha256_tensors(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names and values of tensors, the same for every order and floating type."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sha256_model(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a model's configuration and its tensors."""
    return hashlib.sha256(f"{json.dumps(config, sort_keys=True)}{sha256_tensors(state)}".encode()).hexdigest()


def sha256_tree(root: Path, files: Iterable[Path], digest: Callable[[Path], str] = sha256_file) -> str:
    """Return the SHA-256 of the paths below ``root`` and the contents of files, in the order given.

    Args:
        root: folder of the files.
        files: paths below it.
        digest: of the content of one file.
    """
    tree = hashlib.sha256()
    for path in files:
        tree.update(f"{path.relative_to(root).as_posix()} {digest(path)}\n".encode())
    return tree.hexdigest()


def git_blob_sha1(path: Path) -> str:
    """Return the hash by which git, and the Hub for small files, names the content of a file."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    update(digest, path)
    return digest.hexdigest()
