"""fairseq's configurations on Python 3.11, whose dataclasses reject unhashable defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .patch import Patch, Undo

CONFIGS = "dataclass/configs.py"
NESTED = "common: CommonConfig = CommonConfig()"


def _default_is_rejected(fairseq: Any) -> bool:
    configs = Path(fairseq.__path__[0], CONFIGS)
    if not configs.is_file() or NESTED not in configs.read_text(encoding="utf8"):
        return False
    inner = dataclasses.make_dataclass("Inner", [])
    try:
        dataclasses.make_dataclass("Outer", [("inner", inner, dataclasses.field(default=inner()))])
    except ValueError:
        return True
    return False


def _hash_by_identity(fairseq: Any) -> Undo:
    original: Callable[..., Any] = dataclasses.dataclass

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """Make a dataclass whose instances may be defaults of others, shared as they were up to 3.10."""

        def decorate(undecorated: type) -> type:
            decorated = original(undecorated, **options)
            if decorated.__hash__ is None:
                decorated.__hash__ = object.__hash__
            return decorated

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = dataclass  # type: ignore[assignment]

    def undo() -> None:
        dataclasses.dataclass = original

    return undo


PATCHES = (
    Patch(
        name="fairseq dataclasses",
        module="fairseq",
        reason="ST imports fairseq, whose configurations use instances of others as defaults, a ValueError",
        versions="Python >= 3.11 with fairseq 0.12.2; until fairseq uses default factories",
        needed=_default_is_rejected,
        apply=_hash_by_identity,
        early=True,
    ),
)
