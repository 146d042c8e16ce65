"""Masked prediction of targets (Hsu et al. 2021, section II), on the model that this package compresses."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import ModelConfig, SpeechModel
from ..model.sparse.sparse_forward import sparse_features

FINAL_DIM, TEMPERATURE = 64, 0.1
MASK_PROBABILITY, MASK_LENGTH = 0.8, 10

CONFIG = ModelConfig(
    conv_channels=(128,) * 7,
    embed_dim=192,
    total_heads=12,
    head_dim=16,
    heads=(tuple(range(12)),) * 12,
    ffn=(768,) * 12,
    projection_dropout=0.0,
    attention_dropout=0.0,
    ffn_dropout=0.0,
    dropout=0.0,
)
"""The shape of ``hubert_mini``: HuBERT Base at a quarter of its width."""


class MaskedPrediction(nn.Module):
    """Encoder whose input frames are masked, with logits for the target of every frame.

    Args:
        config: shape of the encoder.
        classes: number of targets.
    """

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.encoder = SpeechModel(config)
        self.mask_embedding = nn.Parameter(torch.empty(config.embed_dim).uniform_())
        self.projection = nn.Linear(config.embed_dim, FINAL_DIM)
        self.target_embeddings = nn.Parameter(torch.randn(classes, FINAL_DIM))

    def forward(self, waveforms: Tensor, masked: Tensor) -> Tensor:
        """Compute logits: cosine to each target's embedding, divided by a temperature (eq. 3).

        Args:
            waveforms: (B, T).
            masked: frames to mask (B, F), bool.

        Returns:
            (B, F, classes).
        """

        def mask(x: Tensor) -> Tensor:
            return torch.where(masked[..., None], self.mask_embedding.to(x.dtype), x)

        x = sparse_features(self.encoder, waveforms, corrupt=mask)[-1]
        x = F.normalize(self.projection(x).float(), dim=-1)
        return x @ F.normalize(self.target_embeddings, dim=-1).T / TEMPERATURE


def draw_masks(rows: int, frames: int, random: np.random.Generator) -> Tensor:
    """Draw spans of frames to mask, (rows, frames) bool; they may overlap (Hsu et al. 2021, section IV-C)."""
    starts = round(MASK_PROBABILITY * frames / MASK_LENGTH)
    masks = np.zeros((rows, frames), bool)
    for row in masks:
        for start in random.choice(frames - MASK_LENGTH, starts, replace=False):
            row[start : start + MASK_LENGTH] = True
    return torch.from_numpy(masks)
