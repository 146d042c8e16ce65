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
ACOUSTIC_LAYER = 4
MASKED_WINDOWS = 0.5
"""The share of windows that are masked; the others are heard whole, as users of the encoder hear speech."""

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
    """Encoder whose input frames are masked, with three linear heads on every frame.

    The last layer predicts the target and the phone, and layer :data:`ACOUSTIC_LAYER` the log-mel energies of
    the frame, as in TERA (Liu et al. 2021): lower layers keep what tells voices and rooms apart.

    Args:
        config: shape of the encoder.
        classes: number of targets.
        phones: number of phones.
        mels: number of mel bands.
    """

    def __init__(self, config: ModelConfig, classes: int, phones: int, mels: int) -> None:
        super().__init__()
        self.encoder = SpeechModel(config)
        self.mask_embedding = nn.Parameter(torch.empty(config.embed_dim).uniform_())
        self.projection = nn.Linear(config.embed_dim, FINAL_DIM)
        self.target_embeddings = nn.Parameter(torch.randn(classes, FINAL_DIM))
        self.phones = nn.Linear(config.embed_dim, phones)
        self.bands = nn.Linear(config.embed_dim, mels)

    def forward(self, waveforms: Tensor, masked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what every frame is predicted to be.

        Args:
            waveforms: (B, T).
            masked: frames to mask (B, F), bool.

        Returns:
            Logits of targets (B, F, classes), cosines to each target's embedding divided by a temperature
            (eq. 3); logits of phones (B, F, phones); energies (B, F, mels).
        """

        def mask(x: Tensor) -> Tensor:
            return torch.where(masked[..., None], self.mask_embedding.to(x.dtype), x)

        states = sparse_features(self.encoder, waveforms, corrupt=mask)
        x = F.normalize(self.projection(states[-1]).float(), dim=-1)
        targets = x @ F.normalize(self.target_embeddings, dim=-1).T / TEMPERATURE
        return targets, self.phones(states[-1]).float(), self.bands(states[ACOUSTIC_LAYER]).float()


def draw_masks(rows: int, frames: int, random: np.random.Generator) -> Tensor:
    """Draw spans of frames to mask, (rows, frames) bool, in a share :data:`MASKED_WINDOWS` of the rows.

    The spans may overlap (Hsu et al. 2021, section IV-C).
    """
    starts = round(MASK_PROBABILITY * frames / MASK_LENGTH)
    masks = np.zeros((rows, frames), bool)
    for row in masks[: round(MASKED_WINDOWS * rows)]:
        for start in random.choice(frames - MASK_LENGTH, starts, replace=False):
            row[start : start + MASK_LENGTH] = True
    return torch.from_numpy(masks)
