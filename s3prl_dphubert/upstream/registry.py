"""Add the upstreams to ``s3prl.hub`` when it is imported, and remove them again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from .. import compat
from ..compat.import_hook import Finder
from ..errors import complain
from . import entries

HUB = "s3prl.hub"

_added: dict[str, Callable[..., Any]] = {}


def register() -> None:
    """Make the upstreams known to s3prl in this process, as the ``.pth`` file does in all of them.

    A second call does nothing. A name that s3prl itself has already is left alone.

    Raises:
        RunError: s3prl is not installed.
    """
    compat.s3prl_home()
    watcher.install()
    compat.apply()
    _add(import_module(HUB))


def remove() -> None:
    """Take exactly what was added off ``s3prl.hub`` and stop watching its import."""
    hub = sys.modules.get(HUB)
    for name, entry in _added.items():
        if hub is not None and vars(hub).get(name) is entry:
            delattr(hub, name)
    _added.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not watcher]


def registered() -> list[str]:
    """Names that are on ``s3prl.hub`` because of this package."""
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
    except Exception as error:  # whatever is wrong with us, s3prl has to start
        complain(error)


watcher = Finder(("s3prl", HUB), _before, _after)
