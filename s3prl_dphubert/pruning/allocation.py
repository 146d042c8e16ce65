"""How many units of each group a budget allows, given what the gates have learnt."""

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
Sizes = dict[Group, int]  # units that each group keeps; of a sublayer 1 or 0


def fit(config: ModelConfig, gates: Gates, masks: Masks, budget: Budget, limits: dict[str, float]) -> Masks:
    """Resize all gate groups together, so that no cost exceeds its limit and the binding one comes close.

    Every group keeps its likeliest units, in number one common factor times what its gates
    expect, rounded as the budget asks; then single steps are reopened where rounding took most,
    while there is room in every count. Sublayers stay as their gates have it, unless the least
    likely have to close since no choice of units fits, or the likeliest fit beside all units.

    Args:
        config: the shape before the gates.
        gates: what has been learnt.
        masks: the gates, each group rounded alone.
        budget: what is counted, and the multiples that widths are rounded to.
        limits: count -> the most that the result may cost.

    Raises:
        RunError: no choice of the gated units keeps the limits.
    """
    fitting = _Fitting(config, gates, masks, budget, limits)
    fitting.check()
    return fitting.masks(fitting.sizes())


def check_reachable(config: ModelConfig, gates: Gates, budget: Budget, limits: dict[str, float]) -> None:
    """Refuse limits that no choice of units can keep, before anything is trained.

    Raises:
        RunError: as for :func:`fit`.
    """
    _Fitting(config, gates, gates.masks(), budget, limits).check()


class _Fitting:
    def __init__(
        self, config: ModelConfig, gates: Gates, masks: Masks, budget: Budget, limits: dict[str, float]
    ) -> None:
        self.config, self.rounded, self.budget, self.limits = config, masks, budget, limits
        self.widths = masked_widths(config, replace(masks, exact=True))
        self.gates: dict[Group, HardConcrete] = {(kind, i): gate for kind, i, gate in gates.items()}
        self.size = {key: len(gate.log_alpha) for key, gate in self.gates.items()}
        self.expected = {key: g.open_probability().sum().item() for key, g in self.gates.items()}
        self.step = {key: 1 if key[0] == "heads" else budget.round_to for key in self.gates}

    def check(self) -> None:
        """Refuse limits that are broken even with every gate closed that may close."""
        closed = {key: 0 for key in self.gates if key[0] not in UNIT_KINDS}
        costs = self.costs(closed | self.scaled(0, closed))
        if any(costs[count] > limit for count, limit in self.limits.items()):
            faults = [f"{costs[c]:,.0f} {c}, allowed: at most {self.limits[c]:,.0f}" for c in costs]
            raise RunError(
                f"budget: the smallest model that these gates allow costs {'; '.join(faults)}; "
                "ask for less sparsity or gate more kinds of units"
            )

    def sizes(self) -> Sizes:
        """The choice of units that fits."""
        sublayers = self.sublayers()
        kept = self.grow(sublayers)
        for key in sorted(sublayers, key=lambda key: -self.expected[key]):
            whole = all(kept[group] == self.size[group] for group in kept if group not in sublayers)
            more = sublayers | {key: 1}
            if whole and more != sublayers and self.fits(more | self.scaled(0, more)):
                sublayers, kept = more, self.grow(more)
        return kept

    def sublayers(self) -> Sizes:
        """Sublayers that stay: those with an open gate, but for the least likely if that is too much."""
        keys = [key for key in self.gates if key[0] not in UNIT_KINDS]
        kept = {(kind, i): int(getattr(self.rounded, kind)[i] > 0) for kind, i in keys}
        while not self.fits(kept | self.scaled(0, kept)):
            kept[min((key for key in keys if kept[key]), key=lambda key: self.expected[key])] = 0
        return kept

    def is_used(self, key: Group, sublayers: Sizes) -> bool:
        """Whether a group of units lies in a sublayer that stays."""
        kind, layer = key
        return kind not in SUBLAYER or bool(sublayers.get((SUBLAYER[kind], layer), 1))

    def grow(self, sublayers: Sizes) -> Sizes:
        """The most units, in the proportion that the gates expect, that fit into these sublayers."""
        least = self.scaled(0, sublayers)
        ratios = [self.size[key] / max(self.expected[key], 1e-9) for key in least]
        low, high = 0.0, 1 + max(ratios, default=0.0)
        for _ in range(60):
            middle = (low + high) / 2
            fits = self.fits(sublayers | self.scaled(middle, sublayers))
            low, high = (middle, high) if fits else (low, middle)
        kept = sublayers | self.scaled(low, sublayers)
        room = True
        while room:
            room = False
            for key in sorted(least, key=lambda key: kept[key] - low * self.expected[key]):
                more = kept | {key: min(self.size[key], kept[key] + self.step[key])}
                if more[key] > kept[key] and self.fits(more):
                    kept, room = more, True
                    break
        return kept

    def scaled(self, factor: float, sublayers: Sizes) -> Sizes:
        """Units of each group in use: the factor times what is expected, rounded; at least a step of conv."""
        sizes = {}
        for key in self.gates:
            if key[0] in UNIT_KINDS and self.is_used(key, sublayers):
                step = self.step[key]
                wanted = step * int(factor * self.expected[key] / step + 0.5)
                sizes[key] = min(self.size[key], max(wanted, step * (key[0] == "conv")))
        return sizes

    def fits(self, sizes: Sizes) -> bool:
        """Whether every count is within its limit."""
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
        """The soft values of the likeliest units of each group, 0 for the others."""
        rows: dict[str, dict[int, Tensor]] = {
            kind: dict(getattr(self.rounded, kind)) for kind in (*UNIT_KINDS, *SUBLAYER.values())
        }
        for (kind, layer), count in sizes.items():
            soft = self.gates[kind, layer].soft().detach()
            mask = torch.zeros_like(soft)
            index = torch.topk(soft, count).indices
            mask[index] = soft[index]
            rows[kind][layer] = mask
        return Masks(**rows, exact=self.rounded.exact)
