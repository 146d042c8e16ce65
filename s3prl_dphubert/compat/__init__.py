"""Repairs that let s3prl 0.4.18 run with current versions of its dependencies, one module per kind.

The last release of s3prl no longer runs with what pip installs beside it. Each repair is made when the
module it concerns is imported, so importing this package costs next to nothing, and a process that never
imports s3prl is never changed.

``S3PRL_DPHUBERT_COMPAT=0`` turns all repairs off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ..errors import RunError
from . import (
    audio_io,
    checkpoint_writes,
    ctc_corpus,
    dataloaders,
    devices,
    disabled_bars,
    distributed_runner,
    fairseq_import,
    file_lists,
    huggingface_hub,
    mask_downstreams,
    missing_modules,
    packed_lstm,
    pandas_rows,
    sox_effects,
)
from .import_hook import Finder
from .patch import Ledger, Patch, PatchStatus

SWITCH = "S3PRL_DPHUBERT_COMPAT"
PATCHES: tuple[Patch, ...] = (
    *audio_io.PATCHES,
    *sox_effects.PATCHES,
    *huggingface_hub.PATCHES,
    *checkpoint_writes.PATCHES,
    *disabled_bars.PATCHES,
    *distributed_runner.PATCHES,
    *dataloaders.PATCHES,
    *ctc_corpus.PATCHES,
    *file_lists.PATCHES,
    *pandas_rows.PATCHES,
    *devices.PATCHES,
    *packed_lstm.PATCHES,
    *mask_downstreams.PATCHES,
    *fairseq_import.PATCHES,
    *missing_modules.PATCHES,
)
"""All repairs, in the order in which s3prl runs into what they mend."""

MODULES = frozenset(patch.module for patch in PATCHES)

_ledger = Ledger()


def enabled() -> bool:
    """Return whether the environment allows repairs."""
    return os.environ.get(SWITCH, "1") != "0"


def apply() -> None:
    """Repair the modules that are imported already, and the others when they are; safe to call again."""
    if not enabled():
        return
    _finder.install()
    for name in MODULES:
        module = sys.modules.get(name)
        if module is not None:
            patch_module(name, module)


def patch_module(name: str, module: ModuleType) -> None:
    """Apply the patches of a module that has just been imported; safe to call again."""
    if not enabled():
        return
    for patch in PATCHES:
        if patch.module == name and not patch.early:
            _ledger.run(patch, module)


def report() -> list[PatchStatus]:
    """Return the state of every patch in this process, in the order of :data:`PATCHES`."""
    return [_ledger.status(patch) for patch in PATCHES]


def s3prl_home() -> Path:
    """Return the folder of the installed s3prl.

    Raises:
        RunError: s3prl is not installed.
    """
    spec = find_spec("s3prl")
    if spec is None or spec.origin is None:
        raise RunError("s3prl is not installed in this environment: pip install s3prl==0.4.18")
    return Path(spec.origin).parent


def _apply_early(module: ModuleType) -> Callable[[], None]:
    """Apply the early patches of a module; returns the function that undoes them."""
    early = [patch for patch in PATCHES if patch.early and patch.module == module.__name__]
    undos = [_ledger.run(patch, module) for patch in early] if enabled() else []

    def undo_all() -> None:
        for undo in undos:
            if undo is not None:
                undo()

    return undo_all


_finder = Finder(MODULES, _apply_early, patch_module)
