"""Model under pruning: an encoder together with the gates over its units."""

from __future__ import annotations

from dataclasses import replace

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

    def expected_costs(self, budget: Budget, shift: Tensor | float = 0.0) -> dict[str, Tensor]:
        """Return each count of the budget for the units expected to stay open, 0-d and differentiable.

        Args:
            budget: counts of the cost.
            shift: amount (0-d) added to the locations of all gates.
        """
        widths = expected_widths(self.model.config, self.gates.expected(shift))
        for kind in self.gates.config.keep:
            if (least := self.gates.config.least(kind)) > 1 or kind != "conv":
                widths = replace(widths, **{kind: getattr(widths, kind).clamp(min=least)})
        costs = budget.costs(self.model.config, widths, training=True)
        return {count: torch.as_tensor(cost) for count, cost in costs.items()}

    def expected_sparsity(
        self, budget: Budget, full_costs: dict[str, Number], shift: Tensor | float = 0.0
    ) -> dict[str, Tensor]:
        """Count -> share of ``full_costs`` that the gates are expected to remove, 0-d and differentiable."""
        costs = self.expected_costs(budget, shift)
        return {count: 1 - cost / float(full_costs[count]) for count, cost in costs.items()}

    def project(
        self,
        budget: Budget,
        full_costs: dict[str, Number],
        gaps: dict[str, Tensor],
        lowest: float,
        highest: float,
    ) -> None:
        """Move all gates by the same amount towards the target sparsity.

        One step of Newton's method on the count that is closest to its target, as the correction of the
        gradient projection method (Rosen 1961, J. SIAM 9(4)). The order of the gates stays as it is.

        Args:
            budget: counts of the cost.
            full_costs: count -> cost of the teacher.
            gaps: count -> sparsity minus target (0-d) to remove.
            lowest: amount by which gates may close, 0 or less, in units of their locations.
            highest: amount by which they may open.
        """
        gap = torch.stack(list(gaps.values()))
        with torch.enable_grad():
            shift = torch.zeros((), dtype=gap.dtype, device=gap.device, requires_grad=True)
            sparsity = torch.stack(list(self.expected_sparsity(budget, full_costs, shift).values()))
            (slope,) = torch.autograd.grad((sparsity * (gap == gap.min())).sum(), shift)
        amount = torch.nan_to_num(-gap.min() / slope, nan=0.0)  # all gates may be closed for good
        self.gates.shift(amount.clamp(lowest, highest))

    @torch.no_grad()
    def check_sparsity(self, budget: Budget, full_costs: dict[str, Number]) -> None:
        """Refuse to prune by gates that are far from a budget.

        Of several counts, one may drag others beyond their targets; the one closest to its target decides.

        Raises:
            RunError: the expected sparsity misses its target by more than the budget's tolerance.
        """
        budget = budget.relative_to(full_costs)
        expected = {count: float(s) for count, s in self.expected_sparsity(budget, full_costs).items()}
        count = min(expected, key=lambda name: expected[name] - budget.shares[name])
        if abs(expected[count] - budget.shares[count]) > budget.tolerance:
            raise RunError(
                f"budget.sparsity.{count} is {budget.shares[count]:g}, but the gates expect "
                f"{expected[count]:.3f} after stage 1, allowed: within budget.tolerance "
                f"({budget.tolerance:g}); start another run with more stage1.updates or a higher "
                "stage1.gate_lr, or go on with a higher budget.tolerance to prune all the same"
            )
