"""Joint distillation and structured pruning of speech SSL models."""

from .checkpoint import load_model, save_model
from .compress import compress
from .prune import prune
from .version import __version__

__all__ = ["__version__", "compress", "load_model", "prune", "save_model"]
