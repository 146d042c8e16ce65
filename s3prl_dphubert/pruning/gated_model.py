"""A student while it is pruned: a model together with its gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model import SpeechModel
from ..model.cost import expected_widths
from ..model.masks import Masks
from .budget import Budget
from .gates import GateConfig, Gates


class GatedModel(nn.Module):
    """Owns a model and the gates over its units; the model itself holds no pruning state."""

    def __init__(self, model: SpeechModel, gates: GateConfig | None = None) -> None:
        super().__init__()
        self.model = model
        self.gates = Gates(model.config, gates)

    def extract_features(
        self, waveforms: Tensor, lengths: Tensor | None = None, masks: Masks | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """As :meth:`SpeechModel.extract_features`, under ``masks`` or else the rounded gates."""
        masks = self.gates.masks() if masks is None else masks
        return self.model.extract_features(waveforms, lengths, masks=masks)

    def expected_costs(self, budget: Budget) -> dict[str, Tensor]:
        """Count -> differentiable cost of the units that the gates expect to keep."""
        widths = expected_widths(self.model.config, self.gates.expected())
        costs = budget.costs(self.model.config, widths, training=True)
        return {count: torch.as_tensor(cost) for count, cost in costs.items()}
