"""The speech encoder: its configuration, its blocks and the whole model."""

from .model_config import ModelConfig
from .speech_model import SpeechModel

__all__ = ["ModelConfig", "SpeechModel"]
