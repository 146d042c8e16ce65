"""Joint distillation and structured pruning of speech SSL models.

Names are imported when they are first used. Importing the package alone costs next to nothing, which
matters because the s3prl plugin is imported at the start of every interpreter.
"""

TYPE_CHECKING = False  # importing typing would take milliseconds
if TYPE_CHECKING:
    from .checkpoints.directory import save_model
    from .checkpoints.load import load_model, load_teacher
    from .compression.compress_config import CompressConfig
    from .compression.pipeline import compress
    from .data.batches import BatchConfig
    from .data.dataset import DataConfig
    from .distillation.frame_masking import MaskingConfig
    from .distillation.objective import ObjectiveConfig
    from .distillation.student_init import StudentConfig
    from .errors import DPHubertError
    from .export import ExportConfig, export_model, load_exported
    from .model import ModelConfig, SpeechModel
    from .model.inference.folded import fold
    from .plugin import register, unregister
    from .pruning.budget import Budget
    from .pruning.gated_model import GatedModel
    from .pruning.gates import GateConfig
    from .pruning.structured import prune
    from .training.train_config import TrainConfig
    from .version import __version__

_HOMES = {
    "BatchConfig": "data.batches",
    "Budget": "pruning.budget",
    "CompressConfig": "compression.compress_config",
    "DPHubertError": "errors",
    "DataConfig": "data.dataset",
    "ExportConfig": "export",
    "GateConfig": "pruning.gates",
    "GatedModel": "pruning.gated_model",
    "MaskingConfig": "distillation.frame_masking",
    "ModelConfig": "model",
    "ObjectiveConfig": "distillation.objective",
    "SpeechModel": "model",
    "StudentConfig": "distillation.student_init",
    "TrainConfig": "training.train_config",
    "__version__": "version",
    "compress": "compression.pipeline",
    "export_model": "export",
    "fold": "model.inference.folded",
    "load_exported": "export",
    "load_model": "checkpoints.load",
    "load_teacher": "checkpoints.load",
    "prune": "pruning.structured",
    "register": "plugin",
    "save_model": "checkpoints.directory",
    "unregister": "plugin",
}
"""Public name -> module that defines it."""

__all__ = [
    "BatchConfig",
    "Budget",
    "CompressConfig",
    "DPHubertError",
    "DataConfig",
    "ExportConfig",
    "GateConfig",
    "GatedModel",
    "MaskingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "SpeechModel",
    "StudentConfig",
    "TrainConfig",
    "__version__",
    "compress",
    "export_model",
    "fold",
    "load_exported",
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
