"""The models that are measured, with random weights: speed does not depend on them."""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoint import save_model
from ..model import ModelConfig, SpeechModel
from ..model.config import dense_heads

CHANNELS = (391, 389, 402, 407, 411, 399, 385)
HEADS = (2, 3, 3, 3, 4, 3, 3, 4, 4, 4, 4, 3)
UNITS = (421, 377, 353, 402, 411, 455, 467, 433, 487, 521, 489, 547)
SHAPES = {
    "base": ModelConfig(),
    "pruned": ModelConfig(
        conv_channels=CHANNELS, heads=tuple(tuple(range(count)) for count in HEADS), ffn=UNITS
    ),
    "distilhubert": ModelConfig(heads=dense_heads(2, 12), ffn=(3072,) * 2),
}
"""HuBERT Base; what the published method makes of it; DistilHuBERT."""
TITLES = {"base": "HuBERT Base", "pruned": "pruned", "distilhubert": "DistilHuBERT"}


def checkpoint(folder: Path, shape: str, config: ModelConfig) -> Path:
    """The checkpoint of a shape below a folder; made if it is not there."""
    path = folder / shape
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_model(SpeechModel(config), path)
    return path
