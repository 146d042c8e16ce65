"""Type checks of plain values, as YAML and JSON give them."""

from __future__ import annotations

from typing import TypeGuard


def is_int(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer; ``True`` and ``False`` are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is an integer or a float, be it infinite; ``True`` and ``False`` are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
