"""Joint distillation and structured pruning of speech SSL models.

Names are looked up when they are first used: importing the package alone costs nothing, which
matters since a plugin is imported at the start of every interpreter.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .checkpoint import load_model, save_model
    from .pipeline import compress
    from .pruning import prune

_HOMES = {
    "compress": "pipeline",
    "load_model": "checkpoint",
    "prune": "pruning",
    "save_model": "checkpoint",
}

__all__ = ["__version__", "compress", "load_model", "prune", "save_model"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
