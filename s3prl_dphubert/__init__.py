"""Joint distillation and structured pruning of speech SSL models.

Names are looked up when they are first used: importing the package alone costs nothing, which
matters since a plugin is imported at the start of every interpreter.
"""

TYPE_CHECKING = False  # typing alone would take milliseconds to import
if TYPE_CHECKING:
    from .checkpoint import load_model, save_model
    from .model.folded import fold
    from .pipeline import compress
    from .pruning import prune
    from .teachers import load_teacher
    from .upstream.registry import register, unregister
    from .version import __version__

_HOMES = {
    "__version__": "version",
    "compress": "pipeline",
    "fold": "model.folded",
    "load_model": "checkpoint",
    "load_teacher": "teachers",
    "prune": "pruning",
    "register": "upstream.registry",
    "save_model": "checkpoint",
    "unregister": "upstream.registry",
}

__all__ = [
    "__version__",
    "compress",
    "fold",
    "load_model",
    "load_teacher",
    "prune",
    "register",
    "save_model",
    "unregister",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
