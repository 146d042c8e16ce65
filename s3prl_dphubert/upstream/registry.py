"""Puts the upstreams onto ``s3prl.hub`` when it is imported, and takes them off again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from .. import autoload, compat
from ..compat.finder import Finder
from ..compat.home import s3prl_home
from . import entries

HUB = "s3prl.hub"

_added: dict[str, Callable[..., Any]] = {}


def register() -> None:
    """Make the upstreams known to s3prl in this process, as the ``.pth`` file does in all of them.

    A second call does nothing. A name that s3prl itself has already is left alone.

    Raises:
        RunError: s3prl is not installed.
    """
    s3prl_home()
    watcher.install()
    compat.apply()
    _add(import_module(HUB))


def unregister() -> None:
    """Take off ``s3prl.hub`` exactly what was put there, and stop waiting for s3prl.

    Repairs of s3prl that have been made stay, since modules that use them may be in use.
    """
    hub = sys.modules.get(HUB)
    for name, entry in _added.items():
        if hub is not None and vars(hub).get(name) is entry:
            delattr(hub, name)
    _added.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _waits(finder)]


def registered() -> list[str]:
    """Names that are on ``s3prl.hub`` because of this package."""
    return sorted(_added)


def _waits(finder: object) -> bool:
    return finder is watcher or isinstance(finder, autoload.Trigger)


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
        autoload.complain(error)


watcher = Finder(("s3prl", HUB), _before, _after)
