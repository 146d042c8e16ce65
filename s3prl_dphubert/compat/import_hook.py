"""Calls back around the import of chosen modules."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Container
from importlib.machinery import ModuleSpec
from types import ModuleType


class Finder:
    """A meta path finder that finds nothing itself: it lets the others find and notes the loading.

    The loader stays what it was, so that source, resources and ``python -m`` work as ever; only its
    ``exec_module`` is wrapped.

    Args:
        names: full names of the modules to be told of.
        before: called with a module before its code runs; returns what to call afterwards.
        after: called with the name and the module once its code has run.
    """

    def __init__(
        self,
        names: Container[str],
        before: Callable[[ModuleType], Callable[[], None]],
        after: Callable[[str, ModuleType], None],
    ) -> None:
        self._names, self._before, self._after = names, before, after
        self._asking = threading.local()

    def install(self) -> None:
        """Put this finder in front of the others; a second call does nothing."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """Ask the other finders; a finder that asks us back gets no answer, and there is no circle."""
        asking: set[str] = self._asking.__dict__.setdefault("names", set())
        if name not in self._names or name in asking:
            return None
        asking.add(name)
        try:
            found = (self._ask(finder, name, path, target) for finder in sys.meta_path)
            spec = next(filter(None, found), None)
        finally:
            asking.discard(name)
        if spec is not None and spec.loader is not None:
            self._wrap(name, spec.loader)
        return spec

    @staticmethod
    def _ask(finder, name: str, path, target) -> ModuleSpec | None:
        find = getattr(finder, "find_spec", None)
        return find(name, path, target) if find else None

    def _wrap(self, name: str, loader) -> None:
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            done = self._before(module)
            try:
                run(module)
            finally:
                done()
            self._after(name, module)

        loader.exec_module = exec_module
