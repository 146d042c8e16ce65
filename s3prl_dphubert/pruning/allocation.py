"""Allocation of a budget to the groups of gates: the number of units that each group keeps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import RunError
from ..model import ModelConfig
from ..model.cost import masked_widths, without_emptied
from ..model.masks import Masks
from .budget import Budget
from .gates import Gates, HardConcrete

SUBLAYER = {"heads": "attention", "ffn": "feed_forward"}
UNIT_KINDS = ("conv", *SUBLAYER)
Group = tuple[str, int]  # kind, layer
Sizes = dict[Group, int]  # open units of each group; of a sublayer 1 or 0


def fit_masks(
    config: ModelConfig, gates: Gates, masks: Masks, budget: Budget, limits: dict[str, float]
) -> Masks:
    """Resize all groups of gates together, so that no cost exceeds its limit and the binding one comes close.

    Every group keeps its likeliest units. Their number is one common factor times the number that the
    gates expect to be open, rounded as the budget asks. Then single steps are reopened where rounding
    took most, as long as every count has room. Sublayers stay as their gates have it, unless the least
    likely ones have to close because no choice of units fits, or further ones fit beside all units.

    Args:
        config: shape before pruning.
        gates: trained gates.
        masks: masks of the gates, each group rounded by itself.
        budget: counts, and the multiples that widths are rounded to.
        limits: count -> highest cost of the result.

    Raises:
        RunError: no choice of the gated units keeps the limits.
    """
    allocation = _Allocation(config, gates, masks, budget, limits)
    allocation.check()
    return allocation.masks(allocation.sizes())


def check_reachable(config: ModelConfig, gates: Gates, budget: Budget, limits: dict[str, float]) -> None:
    """Refuse limits that no choice of units can keep, before anything is trained.

    Raises:
        RunError: as for :func:`fit_masks`.
    """
    _Allocation(config, gates, gates.masks(), budget, limits).check()


class _Allocation:
    def __init__(
        self, config: ModelConfig, gates: Gates, masks: Masks, budget: Budget, limits: dict[str, float]
    ) -> None:
        self.config, self.rounded, self.budget, self.limits = config, masks, budget, limits
        self.widths = masked_widths(config, replace(masks, exact=True))
        self.gates: dict[Group, HardConcrete] = {(kind, i): gate for kind, i, gate in gates.items()}
        self.size = {group: len(gate.log_alpha) for group, gate in self.gates.items()}
        self.expected = {group: g.open_probability().sum().item() for group, g in self.gates.items()}
        self.step = {group: 1 if group[0] == "heads" else budget.round_to for group in self.gates}

    def check(self) -> None:
        """Refuse limits that are exceeded even with every gate closed that may close."""
        closed = {group: 0 for group in self.gates if group[0] not in UNIT_KINDS}
        costs = self.costs(closed | self.scaled(0, closed))
        if any(costs[count] > limit for count, limit in self.limits.items()):
            faults = [f"{costs[c]:,.0f} {c}, allowed: at most {self.limits[c]:,.0f}" for c in costs]
            raise RunError(
                f"budget: the smallest model that these gates allow costs {'; '.join(faults)}; "
                "ask for less sparsity or gate more kinds of units"
            )

    def sizes(self) -> Sizes:
        """Return the number of open units of each group."""
        sublayers = self.open_sublayers()
        sizes = self.grow(sublayers)
        for group in sorted(sublayers, key=lambda group: -self.expected[group]):
            is_full = all(sizes[units] == self.size[units] for units in sizes if units not in sublayers)
            reopened = sublayers | {group: 1}
            if is_full and reopened != sublayers and self.fits(reopened | self.scaled(0, reopened)):
                sublayers, sizes = reopened, self.grow(reopened)
        return sizes

    def open_sublayers(self) -> Sizes:
        """Return the sublayers that stay: those with an open gate, the likeliest if not all of them fit."""
        groups = [group for group in self.gates if group[0] not in UNIT_KINDS]
        sublayers = {(kind, i): int(getattr(self.rounded, kind)[i] > 0) for kind, i in groups}
        while not self.fits(sublayers | self.scaled(0, sublayers)):
            still_open = (group for group in groups if sublayers[group])
            sublayers[min(still_open, key=lambda group: self.expected[group])] = 0
        return sublayers

    def is_used(self, group: Group, sublayers: Sizes) -> bool:
        """Return whether a group of units lies in a sublayer that stays."""
        kind, layer = group
        return kind not in SUBLAYER or bool(sublayers.get((SUBLAYER[kind], layer), 1))

    def grow(self, sublayers: Sizes) -> Sizes:
        """Return the largest sizes that fit into these sublayers, in the proportion that the gates expect."""
        smallest = self.scaled(0, sublayers)
        ratios = [self.size[group] / max(self.expected[group], 1e-9) for group in smallest]
        low, high = 0.0, 1 + max(ratios, default=0.0)
        for _ in range(60):
            middle = (low + high) / 2
            fits = self.fits(sublayers | self.scaled(middle, sublayers))
            low, high = (middle, high) if fits else (low, middle)
        sizes = sublayers | self.scaled(low, sublayers)
        has_room = True
        while has_room:
            has_room = False
            for group in sorted(smallest, key=lambda group: sizes[group] - low * self.expected[group]):
                larger = sizes | {group: min(self.size[group], sizes[group] + self.step[group])}
                if larger[group] > sizes[group] and self.fits(larger):
                    sizes, has_room = larger, True
                    break
        return sizes

    def scaled(self, factor: float, sublayers: Sizes) -> Sizes:
        """Return the expected sizes of the groups in use, times a factor and rounded; conv keeps one step."""
        sizes = {}
        for group in self.gates:
            if group[0] in UNIT_KINDS and self.is_used(group, sublayers):
                step = self.step[group]
                rounded = step * int(factor * self.expected[group] / step + 0.5)
                sizes[group] = min(self.size[group], max(rounded, step * (group[0] == "conv")))
        return sizes

    def fits(self, sizes: Sizes) -> bool:
        """Return whether every count is within its limit."""
        return all(cost <= self.limits[count] for count, cost in self.costs(sizes).items())

    def costs(self, sizes: Sizes) -> dict[str, float]:
        """Count -> cost of the model cut to these sizes."""
        kinds = (*UNIT_KINDS, *SUBLAYER.values(), "any_head")
        widths = replace(self.widths, **{kind: list(getattr(self.widths, kind)) for kind in kinds})
        for (kind, layer), count in sizes.items():
            getattr(widths, kind)[layer] = count
            if kind == "heads":
                widths.any_head[layer] = int(count > 0)
        widths = widths if self.rounded.exact else without_emptied(widths)
        return {count: float(cost) for count, cost in self.budget.costs(self.config, widths).items()}

    def masks(self, sizes: Sizes) -> Masks:
        """Return masks with the soft values of the likeliest units of each group, and 0 for the others."""
        masks: dict[str, dict[int, Tensor]] = {
            kind: dict(getattr(self.rounded, kind)) for kind in (*UNIT_KINDS, *SUBLAYER.values())
        }
        for (kind, layer), count in sizes.items():
            soft = self.gates[kind, layer].soft().detach()
            mask = torch.zeros_like(soft)
            index = torch.topk(soft, count).indices
            mask[index] = soft[index]
            masks[kind][layer] = mask
        return Masks(**masks, exact=self.rounded.exact)
