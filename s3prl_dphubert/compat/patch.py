"""One repair of s3prl or of a library under it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

Undo = Callable[[], None]


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put another value into an attribute while the block runs."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@dataclass(frozen=True)
class Patch:
    """What one repair is for, how to see whether it is needed, and how it is made.

    Attributes:
        name: unique; what ``doctor`` and error lines call it.
        module: the module that is repaired, as soon as it has been imported.
        reason: what fails without it.
        versions: which versions need it, and what will have changed once it can be deleted.
        needed: looks at the module's features, never only at version numbers.
        apply: repairs the module.
        early: the repair is made before the module's own code runs, and is what lets it run; ``apply``
            may then return a function that is called once the module has been imported.
    """

    name: str
    module: str
    reason: str
    versions: str
    needed: Callable[[ModuleType], bool]
    apply: Callable[[ModuleType], Undo | None]
    early: bool = False


@dataclass(frozen=True)
class Row:
    """How one patch stands in this process.

    Attributes:
        name: of the patch.
        needed: ``None`` while its module has not been imported or where the check itself failed.
        applied: whether it is in force.
        reason: what fails without it.
        versions: which versions need it.
        error: why it could not be applied, in one line; empty otherwise.
    """

    name: str
    needed: bool | None
    applied: bool
    reason: str
    versions: str
    error: str = ""


@dataclass(frozen=True)
class _Outcome:
    module: ModuleType
    needed: bool | None
    applied: bool
    error: str = ""


class Ledger:
    """Applies patches, each once for a module, and remembers how it went."""

    def __init__(self) -> None:
        self._outcomes: dict[str, _Outcome] = {}

    def run(self, patch: Patch, module: ModuleType) -> Undo | None:
        """Apply a patch where it is needed; a failure is one line on stderr, never an exception."""
        known = self._outcomes.get(patch.name)
        if known is not None and known.module is module:
            return None
        needed, undo = None, None
        try:
            needed = patch.needed(module)
            if needed:
                undo = patch.apply(module)
            self._outcomes[patch.name] = _Outcome(module, needed, needed)
        except Exception as error:  # s3prl must start whatever is wrong with a repair of ours
            text = f"{type(error).__name__}: {error}".replace("\n", " ")
            self._outcomes[patch.name] = _Outcome(module, needed, False, text)
            print(f"s3prl-dphubert: could not patch {patch.name} ({text}); going on without", file=sys.stderr)
        return undo

    def row(self, patch: Patch) -> Row:
        """How this patch stands."""
        outcome = self._outcomes.get(patch.name)
        if outcome is None:
            return Row(patch.name, None, False, patch.reason, patch.versions)
        return Row(patch.name, outcome.needed, outcome.applied, patch.reason, patch.versions, outcome.error)
