"""Callbacks before and after the import of chosen modules."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Container
from importlib.machinery import ModuleSpec
from types import ModuleType


class Finder:
    """Meta path finder that lets the other finders work and adds callbacks to the loading of a module.

    The module keeps its own loader, so source, resources and ``python -m`` work as usual; only the
    loader's ``exec_module`` is wrapped.

    Args:
        names: full names of the modules to watch.
        before: called with a module before its code runs; returns a function to call right after it.
        after: called with the name and the module once its code has run without error.
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
        """Put this finder before the others; a second call does nothing."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """Ask the other finders; one that asks this finder in turn gets no answer."""
        asking: set[str] = self._asking.__dict__.setdefault("names", set())
        if name not in self._names or name in asking:
            return None
        asking.add(name)
        try:
            finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
            specs = (finder.find_spec(name, path, target) for finder in finders)
            spec = next(filter(None, specs), None)
        finally:
            asking.discard(name)
        if spec is not None and spec.loader is not None:
            self._wrap(name, spec.loader)
        return spec

    def _wrap(self, name: str, loader) -> None:
        original = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            finish = self._before(module)
            try:
                original(module)
            finally:
                finish()
            self._after(name, module)

        loader.exec_module = exec_module
