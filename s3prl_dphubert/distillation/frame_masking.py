"""Masking of a student's input frames, for masked distillation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils.device_copies import start_copy

LOSSES = ("all", "masked")


@dataclass(frozen=True)
class MaskingConfig:
    """Spans of frames that a student in training does not see.

    The teacher sees all frames, so that its hidden states can be cached: MaskHuBERT, and the masked half of
    ARMHuBERT (Jang et al. 2023, arXiv 2305.11685). Spans may overlap, as in wav2vec 2.0 (Baevski et al. 2020,
    section 3.1), but no two begin together; with the defaults about 55 % of the frames are masked.
    Validation masks nothing.

    Args:
        probability: number of spans times their length, over the number of frames.
        length: frames of a span.
        loss: frames whose distance counts, ``all`` or ``masked`` ones alone.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    probability: float = 0.8
    length: int = 10
    loss: str = "all"

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.probability <= 1:
            faults.append(f"probability is {self.probability}, allowed: above 0 to 1")
        if self.length < 1:
            faults.append(f"length is {self.length}, allowed: 1 or more")
        if self.loss not in LOSSES:
            faults.append(f"loss is {self.loss!r}, allowed: {', '.join(LOSSES)}")
        ConfigError.raise_for("masking", faults)


class FrameMasking(nn.Module):
    """Learned embedding (D,) that takes the place of masked frames.

    Args:
        config: spans to mask.
        width: width D of the student.
    """

    def __init__(self, config: MaskingConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.rand(width))

    def draw(self, batch: int, frames: int, generator: torch.Generator) -> Tensor:
        """Draw the masked frames of a batch.

        Args:
            batch: utterances B.
            frames: frames F of each; spans take at most half of them.
            generator: of the CPU.

        Returns:
            (B, F), ``True`` where a frame is masked, on the device of the embedding.
        """
        length = max(1, min(self.config.length, frames // 2))
        starts = frames - length + 1
        count = min(starts, max(1, round(self.config.probability * frames / length)))
        first = torch.rand(batch, starts, generator=generator).topk(count).indices  # (B, spans)
        places = (first[..., None] + torch.arange(length)).flatten(1)
        mask = torch.zeros(batch, frames, dtype=torch.bool).scatter_(1, places, True)
        return start_copy(mask, self.embedding.device)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Put the embedding in place of the masked frames (B, F) of x (B, F, D)."""
        return torch.where(mask[..., None], self.embedding.to(x.dtype), x)
