"""Find the files that ship with the package."""

from __future__ import annotations

from pathlib import Path

from ..errors import DPHubertError

PACKAGE = Path(__file__).resolve().parents[1]
ROOTS = (PACKAGE / "_shipped", PACKAGE, PACKAGE.parent)
"""Folders to search: the files that a wheel carries, the package itself, the checkout around it."""

KINDS = ("assets", "upstream_configs", "downstream_recipes")


class ResourceError(DPHubertError):
    """There is no built-in file of that name."""


def find(name: str) -> Path:
    """Return the path of a shipped file or folder.

    Args:
        name: relative path below ``assets``, ``upstream_configs`` or ``downstream_recipes``.

    Raises:
        ResourceError: there is none of that name; the message lists its neighbours.
    """
    parts = Path(name).parts
    if not parts or parts[0] not in KINDS or ".." in parts:
        raise ResourceError(f"{name!r} is not a built-in file, allowed: a path below {', '.join(KINDS)}")
    for root in ROOTS:
        if (root / name).exists():
            return root / name
    folders = (root / Path(*parts[:-1]) for root in ROOTS)
    available = sorted({entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir()})
    raise ResourceError(f"{name}: no such built-in file; available: {', '.join(available) or 'none'}")
