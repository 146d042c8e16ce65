"""Masked prediction of targets (Hsu et al. 2021, section II), on the model that this package compresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import ModelConfig, SpeechModel
from ..model.masks import NO_MASKS

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

    def forward(self, waveforms: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits: cosine to each target's embedding, divided by a temperature (eq. 3).

        Args:
            waveforms: (B, T).
            masked: frames to mask (B, F), bool.

        Returns:
            Logits (B, F, classes) and the mean square of the conv features, a penalty.
        """
        encoder = self.encoder
        features = encoder.feature_extractor(waveforms)
        x = encoder.encoder.feature_projection(features)
        x = torch.where(masked[..., None], self.mask_embedding.to(x.dtype), x)
        with plain_attention():
            x = encoder.encoder.transformer(x, None, NO_MASKS, encoder.config.num_layers)[-1]
        x = F.normalize(self.projection(x).float(), dim=-1)
        logits = x @ F.normalize(self.target_embeddings, dim=-1).T / TEMPERATURE
        return logits, features.float().pow(2).mean()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Compute attention as two products and a softmax.

    On CPUs the fused kernel takes twice the time of a whole update at 16 dimensions a head in bfloat16.
    """
    fused = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def _attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1).to(v.dtype) @ v


def draw_masks(rows: int, frames: int, random: np.random.Generator) -> Tensor:
    """Draw spans of frames to mask, (rows, frames) bool; they may overlap (Hsu et al. 2021, section IV-C)."""
    starts = round(MASK_PROBABILITY * frames / MASK_LENGTH)
    masks = np.zeros((rows, frames), bool)
    for row in masks:
        for start in random.choice(frames - MASK_LENGTH, starts, replace=False):
            row[start : start + MASK_LENGTH] = True
    return torch.from_numpy(masks)
