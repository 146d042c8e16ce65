"""Repairs of s3prl or of a library that it uses, and the record of those made in this process."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

Undo = Callable[[], None]


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute while the block runs."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Replace a function for good.

    Args:
        owner: module or class that holds the function.
        name: attribute name of the function.
        wrapper: called instead, with the original function before the arguments of the call.
    """
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(owner, name, wrapped)


@dataclass(frozen=True)
class Patch:
    """One repair: its purpose, the check for whether it is needed, and the repair itself.

    Attributes:
        name: unique name, used by ``doctor`` and in error messages.
        module: module to repair as soon as it has been imported.
        reason: what fails without the repair.
        versions: versions that need it, and the change that will make it obsolete.
        needed: inspects the features of the module, never only its version number.
        apply: repairs the module.
        early: repair before the module's own code runs, because that code would fail otherwise; ``apply``
            may then return a function to call once the module has been imported.
    """

    name: str
    module: str
    reason: str
    versions: str
    needed: Callable[[ModuleType], bool]
    apply: Callable[[ModuleType], Undo | None]
    early: bool = False


@dataclass(frozen=True)
class PatchStatus:
    """State of one patch in this process.

    Attributes:
        name: name of the patch.
        needed: ``None`` while the module has not been imported, or if the check itself failed.
        applied: whether the repair is in force.
        error: one line on why the repair could not be made; empty otherwise.
    """

    name: str
    needed: bool | None = None
    applied: bool = False
    error: str = ""


class Ledger:
    """Applies each patch once per module object and records the outcome."""

    def __init__(self) -> None:
        self._outcomes: dict[str, tuple[ModuleType, PatchStatus]] = {}

    def run(self, patch: Patch, module: ModuleType) -> Undo | None:
        """Apply a patch if it is needed; a failure prints one line to stderr and never raises."""
        if patch.name in self._outcomes and self._outcomes[patch.name][0] is module:
            return None
        needed, undo, text = None, None, ""
        try:
            needed = patch.needed(module)
            if needed:
                undo = patch.apply(module)
        except Exception as error:  # a broken repair must not keep s3prl from starting
            text = f"{type(error).__name__}: {error}".replace("\n", " ")
            print(f"s3prl-dphubert: could not patch {patch.name} ({text}); going on without", file=sys.stderr)
        self._outcomes[patch.name] = module, PatchStatus(patch.name, needed, bool(needed and not text), text)
        return undo

    def status(self, patch: Patch) -> PatchStatus:
        """Return the state of a patch."""
        _, status = self._outcomes.get(patch.name, (None, PatchStatus(patch.name)))
        return status
