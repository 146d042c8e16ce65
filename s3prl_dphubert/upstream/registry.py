"""Add the upstreams to ``s3prl.hub`` when it is imported, and remove them again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import compat
from ..checkpoints import user_names
from ..checkpoints.user_names import NamedCheckpoint
from ..compat.import_hook import Finder
from ..errors import ConfigError, printable, shown, warn_unregistered
from . import entries
from .entries import NamedEntry

HUB = "s3prl.hub"

_added: dict[str, Callable[..., Any]] = {}
_left_out: list[str] = []


def register(name: str | None = None, ckpt: str | Path | None = None, **options: Any) -> None:
    """Add the upstreams to ``s3prl.hub`` in this process, as the ``.pth`` file does in every process.

    With a name, ``s3prl.hub`` gets a checkpoint under that name besides: ``-u NAME``,
    ``S3PRLUpstream(NAME)`` and ``s3prl.hub.NAME()`` need no other argument. Names for every process are
    read from a file, see :func:`~s3prl_dphubert.checkpoints.user_names.read_files`.

    A second call with the same arguments does nothing. Upstreams of s3prl itself that have the same name
    as one of this package stay.

    Args:
        name: name on ``s3prl.hub``.
        ckpt: source as for :func:`s3prl_dphubert.load_model`, or an exported file.
        options: options of the upstream, such as ``precision`` and ``padding``.

    Raises:
        RunError: s3prl is not installed.
        ConfigError: the name is taken, it or an option cannot be one, or there is no such checkpoint.
    """
    checkpoint = None
    if name is not None or ckpt is not None or options:
        checkpoint = _checked(name, ckpt, options)
    compat.s3prl_home()
    watcher.install()
    compat.apply()
    hub = import_module(HUB)
    _add(hub)
    if checkpoint is not None:
        _add_named(hub, checkpoint)
        user_names.in_process[checkpoint.name] = checkpoint


def remove(name: str | None = None) -> None:
    """Remove from ``s3prl.hub`` exactly what was added, and stop watching its import.

    Args:
        name: the one name to remove; all of them by default.

    Raises:
        ConfigError: this package has not added the name.
    """
    if name is not None and name not in _added:
        raise ConfigError(f"name is {shown(name)}, allowed: {', '.join(registered()) or 'none'}")
    hub = sys.modules.get(HUB)
    for each in list(_added) if name is None else [name]:
        if hub is not None and vars(hub).get(each) is _added[each]:
            delattr(hub, each)
        del _added[each]
        user_names.in_process.pop(each, None)
    if name is None:
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not watcher]


def registered() -> list[str]:
    """Return the names that this package has added to ``s3prl.hub``."""
    return sorted(_added)


def named() -> dict[str, NamedCheckpoint]:
    """Return the names on ``s3prl.hub`` that stand for checkpoints of the user's."""
    return {name: entry.checkpoint for name, entry in sorted(_added.items()) if isinstance(entry, NamedEntry)}


def left_out() -> list[str]:
    """Return a line for each name in the user's files that is not on ``s3prl.hub``, and the reason."""
    return list(_left_out)


def _add(hub: ModuleType) -> None:
    is_first = not _added
    for name in entries.__all__:
        entry = getattr(entries, name)
        if vars(hub).setdefault(name, entry) is entry:
            _added[name] = entry
        else:
            print(f"s3prl-dphubert: s3prl has an upstream {name} of its own, which stays", file=sys.stderr)
    if is_first:
        _add_from_files(hub)


def _add_from_files(hub: ModuleType) -> None:
    checkpoints, _left_out[:] = user_names.read_files()
    for checkpoint in checkpoints.values():
        try:
            _add_named(hub, checkpoint)
        except ConfigError as error:
            _left_out.append(str(error))
    for fault in _left_out:
        print(f"s3prl-dphubert: left out, {printable(fault)}", file=sys.stderr)


def _add_named(hub: ModuleType, checkpoint: NamedCheckpoint) -> None:
    """Add a checkpoint of the user's.

    Raises:
        ConfigError: the name is taken.
    """
    name, entry = checkpoint.name, NamedEntry(checkpoint)
    if (other := named().get(name)) is not None:
        if other == checkpoint:
            return
        raise ConfigError(
            f"name is {name!r}, which stands for {other.ckpt} already; unregister({name!r}) frees it"
        )
    if name in vars(hub):
        owner = "this package's" if name in _added else "s3prl's"
        raise ConfigError(f"name is {name!r}, allowed: any but {owner} own names, such as my_{name}")
    setattr(hub, name, entry)
    _added[name] = entry


def _checked(name: Any, ckpt: str | Path | None, options: dict[str, Any]) -> NamedCheckpoint:
    """Return a checkpoint that can be loaded as far as can be told without loading it."""
    from ..checkpoints.hub import is_remote
    from ..checkpoints.load import SOURCES
    from .cached_expert import CachedOptions

    source = user_names.absolute(ckpt) if isinstance(ckpt, str | Path) and str(ckpt) else ""
    checkpoint = NamedCheckpoint(name, source, options)
    if not (Path(source).exists() or is_remote(source)):
        raise ConfigError(f"ckpt is {str(ckpt)!r}, expected {SOURCES}")
    CachedOptions.read(None, options)
    return checkpoint


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
