"""Shapes of the measured models; their weights are random, since speed does not depend on them."""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoints.directory import save_model
from ..model import ModelConfig, SpeechModel
from ..model.model_config import dense_heads

CHANNELS = (391, 389, 402, 407, 411, 399, 385)
HEADS = (2, 3, 3, 3, 4, 3, 3, 4, 4, 4, 4, 3)
UNITS = (421, 377, 353, 402, 411, 455, 467, 433, 487, 521, 489, 547)
SHAPES = {
    "base": ModelConfig(),
    "pruned": ModelConfig(
        conv_channels=CHANNELS, heads=tuple(tuple(range(count)) for count in HEADS), ffn=UNITS
    ),
    "macs": ModelConfig(
        conv_channels=(192, 192, 200, 200, 208, 200, 192),
        heads=tuple(tuple(range(count)) for count in HEADS),
        ffn=(528, 472, 440, 504, 512, 568, 584, 544, 608, 648, 608, 680),
    ),
    "distilhubert": ModelConfig(heads=dense_heads(2, 12), ffn=(3072,) * 2),
}
"""HuBERT Base; the result of the published method; as many parameters with 0.62 of the MACs, half the conv
channels and a quarter more feed-forward units; DistilHuBERT."""

TITLES = {
    "base": "HuBERT Base",
    "pruned": "pruned",
    "macs": "pruned, fewer MACs",
    "distilhubert": "DistilHuBERT",
}


def checkpoint(folder: Path, shape: str, config: ModelConfig) -> Path:
    """Return the checkpoint of a shape below a folder, written if missing."""
    path = folder / shape
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_model(SpeechModel(config), path)
    return path
