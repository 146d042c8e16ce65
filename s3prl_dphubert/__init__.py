"""Joint distillation and structured pruning of speech SSL models.

Names are looked up when they are first used: importing the package alone costs nothing, which
matters since a plugin is imported at the start of every interpreter.
"""

TYPE_CHECKING = False  # typing alone would take milliseconds to import
if TYPE_CHECKING:
    from .checkpoints.directory import save_model
    from .checkpoints.load import load_model, load_teacher
    from .compression.pipeline import compress
    from .model.inference.folded import fold
    from .plugin import register, unregister
    from .pruning.structured import prune
    from .version import __version__

_HOMES = {
    "__version__": "version",
    "compress": "compression.pipeline",
    "fold": "model.inference.folded",
    "load_model": "checkpoints.load",
    "load_teacher": "checkpoints.load",
    "prune": "pruning.structured",
    "register": "plugin",
    "save_model": "checkpoints.directory",
    "unregister": "plugin",
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
