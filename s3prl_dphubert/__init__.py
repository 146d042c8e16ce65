"""Joint distillation and structured pruning of speech SSL models."""

from .checkpoint import load_model, save_model
from .compress import compress
from .prune import prune

__version__ = "0.1.0"
__all__ = ["compress", "load_model", "prune", "save_model"]
