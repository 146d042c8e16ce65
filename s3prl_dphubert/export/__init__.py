"""Export of models to ONNX Runtime and OpenVINO: ``export_model`` writes them, ``load_exported`` runs them.

Writing needs the package onnx; running a file only needs its runtime.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .export_config import ExportConfig
    from .exporter import export_model
    from .runtime import Runtime, load_exported

_HOMES = {
    "ExportConfig": "export_config",
    "Runtime": "runtime",
    "export_model": "exporter",
    "load_exported": "runtime",
}
__all__ = ["ExportConfig", "Runtime", "export_model", "load_exported"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        from .backends import needed

        if name == "export_model":
            needed("onnx", "onnx")
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
