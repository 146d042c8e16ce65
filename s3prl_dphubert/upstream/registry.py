"""Add the upstreams to ``s3prl.hub`` when it is imported, and remove them again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from .. import compat
from ..compat.import_hook import Finder
from ..errors import warn_unregistered
from . import entries

HUB = "s3prl.hub"

_added: dict[str, Callable[..., Any]] = {}


def register() -> None:
    """Add the upstreams to ``s3prl.hub`` in this process, as the ``.pth`` file does in every process.

    A second call does nothing. Upstreams of s3prl itself that have the same name stay.

    Raises:
        RunError: s3prl is not installed.
    """
    compat.s3prl_home()
    watcher.install()
    compat.apply()
    _add(import_module(HUB))


def remove() -> None:
    """Remove from ``s3prl.hub`` exactly what was added, and stop watching its import."""
    hub = sys.modules.get(HUB)
    for name, entry in _added.items():
        if hub is not None and vars(hub).get(name) is entry:
            delattr(hub, name)
    _added.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not watcher]


def registered() -> list[str]:
    """Return the names that this package has added to ``s3prl.hub``."""
    return sorted(_added)


def _add(hub: ModuleType) -> None:
    for name in entries.__all__:
        entry = getattr(entries, name)
        if vars(hub).setdefault(name, entry) is entry:
            _added[name] = entry
        else:
            print(f"s3prl-dphubert: s3prl has an upstream {name} of its own, which stays", file=sys.stderr)


def _before(module: ModuleType) -> Callable[[], None]:
    if module.__name__ == "s3prl":
        _safely(compat.apply)
    return lambda: None


def _after(name: str, module: ModuleType) -> None:
    if name == HUB:
        _safely(_add, module)


def _safely(function: Callable[..., None], *arguments: Any) -> None:
    try:
        function(*arguments)
    except Exception as error:  # s3prl has to start, whatever is wrong with this package
        warn_unregistered(error)


watcher = Finder(("s3prl", HUB), _before, _after)
