"""Weights that validated best, kept beside the checkpoints of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.state_dict import load_weights_only
from ..utils.files import replacing

BEST, KEPT = "best.pt", "valid-*.pt"


class BestCheckpoints:
    """Keep the weights of the lowest validation loss, and those of further low ones to average.

    A mean of several checkpoints often generalizes better than the best (ESPnet's ``keep_nbest_models``).

    Args:
        folder: directory of the training.
        count: number of checkpoints to average; 1 keeps the best alone.
        losses: (loss, update) of those kept so far, from the best on.
        write: whether this process writes the files.
    """

    def __init__(
        self, folder: Path, count: int = 1, losses: list[tuple[float, int]] | None = None, write: bool = True
    ) -> None:
        self.folder, self.count, self.write = folder, count, write
        self.losses = sorted((float(loss), int(update)) for loss, update in losses or [])

    @property
    def lowest(self) -> float | None:
        """Lowest loss so far; ``None`` before the first validation."""
        return self.losses[0][0] if self.losses else None

    def add(self, loss: float, update: int, module: torch.nn.Module) -> None:
        """Keep the weights after an update if their loss is low enough, and drop those that it replaces."""
        losses = sorted([*self.losses, (loss, update)])[: self.count]
        is_best, is_kept = losses[0] == (loss, update), (loss, update) in losses
        self.losses = losses
        if not self.write:
            return
        content = {"module": module.state_dict(), "update": update, "loss": loss}
        if is_best:
            write_checkpoint(content, self.folder / BEST)
        if self.count > 1:
            if is_kept:
                write_checkpoint(content, self._path(update))
            best = {self._path(other) for _, other in losses}
            for path in set(self.folder.glob(KEPT)) - best:
                path.unlink()

    def _path(self, update: int) -> Path:
        return self.folder / KEPT.replace("*", f"{update:08d}")


def load_best(folder: Path, count: int = 1) -> dict[str, Tensor] | None:
    """Return the weights that validated best, or the mean of the ``count`` best; ``None`` without validation.

    Raises:
        CheckpointError: a file is damaged.
    """
    paths = sorted(folder.glob(KEPT)) if count > 1 else [path for path in [folder / BEST] if path.exists()]
    states = [load_weights_only(path)["module"] for path in paths]
    if not states:
        return None
    mean = dict(states[0])
    for name, tensor in mean.items():
        if len(states) > 1 and tensor.is_floating_point():
            total = torch.stack([state[name].double() for state in states]).mean(0)
            mean[name] = total.to(tensor.dtype)
    return mean


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a file of tensors and plain values at once."""
    with replacing(path) as partial:
        torch.save(content, partial)
