"""Prediction heads of DistilHuBERT: every target from the student's last layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SplitHeads(nn.Module):
    """Heads of s3prl's distiller (Chang et al. 2022, figure 1; ``out_layer_type: expand-last``).

    A linear map to one part of width D for each target, GELU, then a linear map of each part alone, so that
    predictions take any value. There are no task embeddings, as in the published model.

    Args:
        student_dim: width D of the student.
        teacher_dim: width of the targets.
        count: number of targets N.
    """

    def __init__(self, student_dim: int, teacher_dim: int, count: int) -> None:
        super().__init__()
        self.inner = nn.Linear(student_dim, student_dim * count)
        bound = student_dim**-0.5
        self.weight = nn.Parameter(torch.empty(count, student_dim, teacher_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, teacher_dim).uniform_(-bound, bound))

    def forward(self, hidden: Tensor) -> Tensor:
        """Predict all targets (N, B, F, teacher's D) from the last hidden states (B, F, D)."""
        parts = nn.functional.gelu(self.inner(hidden)).unflatten(-1, (len(self.weight), -1))
        return torch.einsum("bfnd,nde->nbfe", parts, self.weight) + self.bias[:, None, None].to(parts.dtype)
