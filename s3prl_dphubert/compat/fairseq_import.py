"""fairseq's configurations under Python 3.11, whose dataclasses refuse an unhashable default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .patch import Patch, Undo

SETTINGS = "dataclass/configs.py"
NESTED = "common: CommonConfig = CommonConfig()"


def _refused(fairseq: Any) -> bool:
    settings = Path(fairseq.__path__[0], SETTINGS)
    if not settings.is_file() or NESTED not in settings.read_text(encoding="utf8"):
        return False
    inner = dataclasses.make_dataclass("Inner", [])
    try:
        dataclasses.make_dataclass("Outer", [("inner", inner, dataclasses.field(default=inner()))])
    except ValueError:
        return True
    return False


def _hash_by_identity(fairseq: Any) -> Undo:
    before: Callable[..., Any] = dataclasses.dataclass

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """Make a dataclass whose instances may be defaults of others, shared as they were up to 3.10."""

        def made(kind: type) -> type:
            whole = before(kind, **options)
            if whole.__hash__ is None:
                whole.__hash__ = object.__hash__
            return whole

        return made if cls is None else made(cls)

    dataclasses.dataclass = dataclass  # type: ignore[assignment]

    def undo() -> None:
        dataclasses.dataclass = before

    return undo


PATCHES = (
    Patch(
        name="fairseq dataclasses",
        module="fairseq",
        reason="ST imports fairseq, whose configurations have others as their defaults, a ValueError",
        versions="Python >= 3.11 with fairseq 0.12.2; until fairseq gives factories of defaults",
        needed=_refused,
        apply=_hash_by_identity,
        early=True,
    ),
)
