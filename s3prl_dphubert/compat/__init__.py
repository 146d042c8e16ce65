"""s3prl 0.4.18 on today's library versions: every repair, each with what it is for.

s3prl's last release is of 2025 and no longer runs with what pip installs beside it. The repairs are
made on modules as they are imported, so that importing this package costs next to nothing and a
process that never imports s3prl is never changed.

``S3PRL_DPHUBERT_COMPAT=0`` turns all of them off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType

from .import_hook import Finder
from .patch import Ledger, Patch, Row
from .patches import PATCHES

__all__ = ["MODULES", "PATCHES", "Patch", "Row", "apply", "enabled", "patch_module", "report"]

SWITCH = "S3PRL_DPHUBERT_COMPAT"
MODULES = frozenset(patch.module for patch in PATCHES)

_ledger = Ledger()


def enabled() -> bool:
    """Whether the environment lets us patch."""
    return os.environ.get(SWITCH, "1") != "0"


def apply() -> None:
    """Patch what is already imported, and everything else when it will be; safe to call again."""
    if not enabled():
        return
    _finder.install()
    for name in MODULES:
        module = sys.modules.get(name)
        if module is not None:
            patch_module(name, module)


def patch_module(name: str, module: ModuleType) -> None:
    """Apply the patches of one module that has just been imported; safe to call again."""
    if not enabled():
        return
    for patch in PATCHES:
        if patch.module == name and not patch.early:
            _ledger.run(patch, module)


def report() -> list[Row]:
    """How every patch stands in this process, in the order of the table."""
    return [_ledger.row(patch) for patch in PATCHES]


def _before(module: ModuleType) -> Callable[[], None]:
    early = [patch for patch in PATCHES if patch.early and patch.module == module.__name__]
    undo = [_ledger.run(patch, module) for patch in early] if enabled() else []

    def done() -> None:
        for step in undo:
            if step is not None:
                step()

    return done


_finder = Finder(MODULES, _before, patch_module)
