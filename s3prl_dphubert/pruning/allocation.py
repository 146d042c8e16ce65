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
from .gates import SUBLAYER, Gates, HardConcrete, open_probability

UNIT_KINDS = ("conv", *SUBLAYER)
NONE, ALL = -1000.0, 1000.0  # amounts that close and open all gates
Group = tuple[str, int]  # kind, layer
Sizes = dict[Group, int]  # open units of each group; of a sublayer 1 or 0


def fit_masks(
    config: ModelConfig, gates: Gates, masks: Masks, budget: Budget, limits: dict[str, float]
) -> Masks:
    """Resize all groups of gates together, so that no cost exceeds its limit and the binding one comes close.

    All gates are moved by the same amount, as training moves them towards the target; every group keeps as
    many units as its gates then expect, the likeliest, rounded as the budget asks. What room is left goes to
    the units that are likeliest to be open among those of all groups. Sublayers stay as their gates have
    it, unless the least likely ones have to close because no choice of units fits, or further ones fit
    beside all units.

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
        self.locations = {group: g.log_alpha.detach().double().cpu() for group, g in self.gates.items()}
        self.step = {group: 1 if group[0] == "heads" else budget.round_to for group in self.gates}
        self.least: Sizes = {}
        for group, step in self.step.items():
            self.least[group] = min(self.size[group], step * -(-gates.config.least(group[0]) // step))

    def check(self) -> None:
        """Refuse limits that are exceeded even with every gate closed that may close."""
        closed = {group: 0 for group in self.gates if group[0] not in UNIT_KINDS}
        costs = self.costs(closed | self.moved(NONE, closed))
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
            if is_full and reopened != sublayers and self.fits(reopened | self.moved(NONE, reopened)):
                sublayers, sizes = reopened, self.grow(reopened)
        return sizes

    def open_sublayers(self) -> Sizes:
        """Return the sublayers that stay: those with an open gate, the likeliest if not all of them fit."""
        groups = [group for group in self.gates if group[0] not in UNIT_KINDS]
        sublayers = {(kind, i): int(getattr(self.rounded, kind)[i] > 0) for kind, i in groups}
        while not self.fits(sublayers | self.moved(NONE, sublayers)):
            still_open = (group for group in groups if sublayers[group])
            sublayers[min(still_open, key=lambda group: self.expected[group])] = 0
        return sublayers

    def is_used(self, group: Group, sublayers: Sizes) -> bool:
        """Return whether a group of units lies in a sublayer that stays."""
        kind, layer = group
        return kind not in SUBLAYER or bool(sublayers.get((SUBLAYER[kind], layer), 1))

    def grow(self, sublayers: Sizes) -> Sizes:
        """Return the largest sizes that fit into these sublayers, in the order in which the gates open."""
        low, high = NONE, ALL
        for _ in range(60):
            middle = (low + high) / 2
            fits = self.fits(sublayers | self.moved(middle, sublayers))
            low, high = (middle, high) if fits else (low, middle)
        sizes = sublayers | self.moved(low, sublayers)
        ranked = {group: location.sort(descending=True).values for group, location in self.locations.items()}
        groups = [group for group in sizes if group not in sublayers]
        while groups:
            groups = [group for group in groups if sizes[group] < self.size[group]]
            for group in sorted(groups, key=lambda group: -float(ranked[group][sizes[group]])):
                larger = sizes | {group: min(self.size[group], sizes[group] + self.step[group])}
                if self.fits(larger):
                    sizes = larger
                    break
            else:
                break
        return sizes

    def moved(self, amount: float, sublayers: Sizes) -> Sizes:
        """Return the sizes that the gates in use expect once all are moved by an amount, rounded."""
        sizes = {}
        for group in self.gates:
            if group[0] in UNIT_KINDS and self.is_used(group, sublayers):
                step = self.step[group]
                expected = open_probability(self.locations[group] + amount).sum().item()
                rounded = step * int(expected / step + 0.5)
                sizes[group] = min(self.size[group], max(rounded, self.least[group]))
        return sizes

    def fits(self, sizes: Sizes) -> bool:
        """Return whether every count is within its limit."""
        return all(cost <= self.limits[count] for count, cost in self.costs(sizes).items())

    def costs(self, sizes: Sizes) -> dict[str, float]:
        """Count -> cost of the model cut to these sizes."""
        kinds = (*UNIT_KINDS, *SUBLAYER.values(), "any_head")
        widths = replace(self.widths, **{kind: getattr(self.widths, kind).copy() for kind in kinds})
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
            index = torch.topk(self.gates[kind, layer].log_alpha.detach(), count).indices
            mask[index] = soft[index]
            masks[kind][layer] = mask
        return Masks(**masks, exact=self.rounded.exact)
