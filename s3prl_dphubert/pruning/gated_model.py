"""Model under pruning: an encoder together with the gates over its units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import RunError
from ..model import SpeechModel
from ..model.cost import Number, expected_widths
from ..model.masks import Masks
from .budget import Budget
from .gates import GateConfig, Gates


class GatedModel(nn.Module):
    """A model and hard concrete gates over its units; the model itself holds no pruning state.

    :func:`~s3prl_dphubert.compress` trains the gates together with the model, and
    :func:`~s3prl_dphubert.prune` removes the units whose gates have closed.

    Args:
        model: encoder to prune, taken over without a copy.
        gates: units to gate; conv channels, heads and feed-forward units by default.
    """

    def __init__(self, model: SpeechModel, gates: GateConfig | None = None) -> None:
        super().__init__()
        self.model = model
        self.gates = Gates(model.config, gates)

    def extract_features(
        self, waveforms: Tensor, lengths: Tensor | None = None, masks: Masks | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Compute hidden states as :meth:`SpeechModel.extract_features` does, with units masked.

        Args:
            waveforms: (B, T) at 16 kHz.
            lengths: (B,) samples of each waveform.
            masks: masks of the units; by default those of the gates, rounded to their expected number.

        Returns:
            Hidden states [L+1] (B, F, D), and their lengths (B,) if ``lengths`` is given.
        """
        masks = self.gates.masks() if masks is None else masks
        return self.model.extract_features(waveforms, lengths, masks=masks)

    def expected_costs(self, budget: Budget) -> dict[str, Tensor]:
        """Return each count of the budget for the units expected to stay open, 0-d and differentiable."""
        widths = expected_widths(self.model.config, self.gates.expected())
        costs = budget.costs(self.model.config, widths, training=True)
        return {count: torch.as_tensor(cost) for count, cost in costs.items()}

    def expected_sparsity(self, budget: Budget, full_costs: dict[str, Number]) -> dict[str, Tensor]:
        """Count -> share of ``full_costs`` that the gates are expected to remove, 0-d and differentiable."""
        costs = self.expected_costs(budget)
        return {count: 1 - cost / float(full_costs[count]) for count, cost in costs.items()}

    @torch.no_grad()
    def check_sparsity(self, budget: Budget, full_costs: dict[str, Number]) -> None:
        """Refuse to prune by gates that are far from a budget.

        Of several counts, one may drag others beyond their targets; the one closest to its target decides.

        Raises:
            RunError: the expected sparsity misses its target by more than the budget's tolerance.
        """
        expected = {count: float(s) for count, s in self.expected_sparsity(budget, full_costs).items()}
        count = min(expected, key=lambda name: expected[name] - budget.shares[name])
        if abs(expected[count] - budget.shares[count]) > budget.tolerance:
            raise RunError(
                f"budget.sparsity.{count} is {budget.shares[count]:g}, but the gates expect "
                f"{expected[count]:.3f} after stage 1, allowed: within budget.tolerance "
                f"({budget.tolerance:g}); start another run with more stage1.updates or a higher "
                "stage1.gate_lr, or go on with a higher budget.tolerance to prune all the same"
            )
