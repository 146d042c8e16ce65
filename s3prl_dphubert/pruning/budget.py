"""Budget of a pruned model, and the penalty that trains a gated model towards it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..errors import ConfigError
from ..model.cost import SUPERB_LENGTHS, Number, Widths, macs, parameters
from ..model.model_config import ModelConfig
from ..utils.config_io import is_number
from .latency import latency, read_table

COUNTS = ("parameters", "published", "macs", "superb_macs", "latency")
"""Quantities that a budget may limit: parameters, in training with or without (``published``) the
relative positions of WavLM; MACs of one utterance; MACs summed over the utterances of the SUPERB challenge;
seconds that one utterance takes on the machine of a table."""

CONSTRAINTS = ("penalty", "projection")
CURVES = ("linear", "cubic", "cosine")
PUBLISHED_SHARES = {"parameters": 0.75}
_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kMGT]?)")
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Budget:
    """Cost that a pruned model may have, in one count or in several at once.

    A cost is given as the share of the teacher's to remove (``sparsity``), or as an amount
    (``parameters: 24M``). An amount replaces the share of the same count. ``sparsity`` without a value in the
    configuration counts for nothing beside amounts.

    Args:
        sparsity: count -> share of the teacher to remove; ``{"parameters": 0.75}`` keeps a quarter of the
            parameters. A plain number is a share of the parameters. Other counts are ``macs`` of one
            utterance of ``seconds``; ``superb_macs``, the sum over the utterances of the SUPERB
            challenge; ``published``, parameters without WavLM's relative positions in training, as in
            the published formula; ``latency``, seconds on the machine of ``table``.
        parameters: most parameters of the result, as a number or a text such as ``24M`` (k, M, G, T are
            powers of 1000); so are the other amounts.
        published: most parameters, counted as the published formula does.
        macs: most MACs of one utterance of ``seconds``.
        superb_macs: most MACs of the utterances of the SUPERB challenge.
        latency: most seconds on the machine of ``table``.
        warmup: updates in which the targets rise from 0.
        curve: form of that rise: ``linear`` (as published), ``cubic`` (fast at first, slow at the end;
            Zhu and Gupta 2017, eq. 1) or ``cosine`` (slow at both ends).
        constraint: ``penalty`` leaves the targets to the Lagrangian penalty, as published; the gates then end
            some hundredths off. ``projection`` also moves all gates together, so that they end on the
            target: it opens gates that overshoot once the target has risen, and closes gates in the second
            half of stage 1 (:meth:`GatedModel.project`).
        seconds: length in seconds of the utterance whose MACs are counted.
        round_to: multiple to which conv channels and feed-forward units are cut, such as 8 for faster
            kernels; a group that is not cut keeps its size.
        table: file with the latency of units, written by ``bench --table``; needed for ``latency``.
        tolerance: largest distance between the sparsity that the gates expect after stage 1 and the target.
            Further away the model is not pruned, since the cut would take units that it still relies on.
            The default is a fifth of what a model of sparsity 0.75 keeps.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    sparsity: float | dict[str, float] | None = field(default_factory=lambda: PUBLISHED_SHARES)
    parameters: float | str | None = None
    published: float | str | None = None
    macs: float | str | None = None
    superb_macs: float | str | None = None
    latency: float | str | None = None
    warmup: int = 5000
    curve: str = "linear"
    constraint: str = "penalty"
    seconds: float = 10.0
    round_to: int = 1
    table: str | None = None
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        faults = []
        for count in COUNTS:
            value = getattr(self, count)
            amount = read_amount(value)
            object.__setattr__(self, count, amount)
            if amount is not None and not 0 < amount < math.inf:
                faults.append(f"{count} is {value!r}, allowed: a number above 0, or a text such as 24M")
        sparsity: Any = self.sparsity
        if sparsity is None or (sparsity is PUBLISHED_SHARES and self.amounts):
            sparsity = {}
        shares = dict(sparsity) if isinstance(sparsity, dict) else {"parameters": sparsity}
        shares = {count: share for count, share in shares.items() if count not in self.amounts}
        order = {count: shares[count] for count in COUNTS if count in shares}
        if sparsity is not PUBLISHED_SHARES:  # which has no value in the configuration
            object.__setattr__(self, "sparsity", order | shares)
        faults += _share_faults(shares, self.amounts)
        if self.warmup < 0:
            faults.append(f"warmup is {self.warmup}, allowed: 0 or more")
        for name, choices in (("curve", CURVES), ("constraint", CONSTRAINTS)):
            if getattr(self, name) not in choices:
                faults.append(f"{name} is {getattr(self, name)!r}, allowed: {', '.join(choices)}")
        if not self.seconds >= 0.1:
            faults.append(f"seconds is {self.seconds}, allowed: 0.1 or more")
        if "latency" in shares | self.amounts and not self.table:
            faults.append("table is missing, allowed with latency: a file that bench --table wrote")
        if not 0 < self.tolerance <= 1:
            faults.append(f"tolerance is {self.tolerance}, allowed: above 0 to 1")
        if self.round_to < 1:
            faults.append(f"round_to is {self.round_to}, allowed: 1 or more")
        ConfigError.raise_for("budget", faults)

    @property
    def amounts(self) -> dict[str, float]:
        """Count -> highest cost, of the counts that are limited by an amount, in the order of ``COUNTS``."""
        amounts = {count: getattr(self, count) for count in COUNTS}
        return {count: amount for count, amount in amounts.items() if amount is not None}

    @property
    def shares(self) -> dict[str, float]:
        """Count -> share of the teacher to remove, in the order of ``COUNTS``; without amounts."""
        return dict(self.sparsity)  # type: ignore[arg-type]

    @property
    def counts(self) -> tuple[str, ...]:
        """Counts that are limited, in the order of ``COUNTS``."""
        return tuple(count for count in COUNTS if count in self.shares or count in self.amounts)

    def __str__(self) -> str:
        shares = ", ".join(f"{share:g} in {count}" for count, share in self.shares.items())
        amounts = ", ".join(f"at most {_shown(amount)} {count}" for count, amount in self.amounts.items())
        return "; ".join([f"sparsity {shares}"] * bool(shares) + [amounts] * bool(amounts))

    def relative_to(self, full: dict[str, Number]) -> Budget:
        """Return the same budget in shares alone, given the costs of the teacher.

        Raises:
            ConfigError: an amount is no less than the teacher's cost.
        """
        amounts = self.amounts
        faults = [
            f"{count} is {amount:,.0f}, allowed: less than the teacher's {float(full[count]):,.0f}"
            for count, amount in amounts.items()
            if amount >= float(full[count])
        ]
        ConfigError.raise_for("budget", faults)
        shares = {count: 1 - amount / float(full[count]) for count, amount in amounts.items()}
        if not shares:
            return self
        changes: dict[str, Any] = dict.fromkeys(amounts) | {"sparsity": self.shares | shares}
        return replace(self, **changes)

    def costs(
        self, config: ModelConfig, widths: Widths | None = None, training: bool = False
    ) -> dict[str, Number]:
        """Return the cost of a model in each count.

        Args:
            config: shape before pruning.
            widths: open units, as numbers or tensors; all units by default.
            training: count ``published`` by its formula, not by the actual parameters.
        """
        return {count: self._cost(count, config, widths, training) for count in self.counts}

    def _cost(self, count: str, config: ModelConfig, widths: Widths | None, training: bool) -> Number:
        if count == "macs":
            return macs(config, round(self.seconds * SAMPLE_RATE), widths)
        if count == "latency":
            return latency(config, read_table(str(self.table)), widths)
        if count == "superb_macs":
            return macs(config, SUPERB_LENGTHS, widths)
        return parameters(config, widths, published=training and count == "published")

    def limits(self, full: dict[str, Number]) -> dict[str, float]:
        """Return the highest cost of the pruned model in each count, given the costs of the teacher."""
        shares = self.relative_to(full).shares
        return {count: (1 - share) * float(full[count]) for count, share in shares.items()}

    def targets(self, update: int, initial: dict[str, float] | None = None) -> dict[str, float]:
        """Return the target sparsity of each count at an update, counted from 0, of a budget in shares alone.

        Args:
            update: number of the update.
            initial: sparsity from which the targets rise, of a student that is smaller than its teacher
                before any pruning; 0 by default.
        """
        progress = self.progress(update, self.warmup)
        first = {count: min((initial or {}).get(count, 0.0), share) for count, share in self.shares.items()}
        return {
            count: first[count] + (share - first[count]) * progress if progress < 1 else share
            for count, share in self.shares.items()
        }

    def progress(self, update: int, warmup: int) -> float:
        """Return how far a target has risen at an update, counted from 0, of ``warmup`` updates; 0 to 1."""
        if update >= warmup:
            return 1.0
        progress = update / warmup
        if self.curve == "cubic":
            return 1 - (1 - progress) ** 3
        if self.curve == "cosine":
            return (1 - math.cos(math.pi * progress)) / 2
        return progress

    def may_move(self, update: int, updates: int) -> tuple[bool, bool]:
        """Return whether projection may open and whether it may close gates at an update, counted from 0.

        Not before the penalty has had its time, since it closes the gates that matter least to the student.

        Args:
            update: number of the update.
            updates: updates of the training.
        """
        is_projected = self.constraint == "projection"
        return is_projected and update >= self.warmup, is_projected and 2 * update >= updates

    def of_size(self, size: float | str) -> Budget:
        """Return the same budget with another size of its count: a share to remove below 1, else an amount.

        Raises:
            ConfigError: the budget has several counts, or the size means nothing.
        """
        if len(self.counts) != 1:
            raise ConfigError(f"budget: limits {', '.join(self.counts)}, allowed with sizes: one count")
        (count,) = self.counts
        amount = read_amount(size)
        is_share = isinstance(amount, float | int) and 0 < amount < 1 and count != "latency"
        changes: dict[str, Any] = {"sparsity": {count: amount} if is_share else {}}
        return replace(self, **changes | {count: None if is_share else size})


def read_amount(value: Any) -> float | None:
    """Read a cost: a number, or a text such as ``24M`` or ``8 G`` (k, M, G, T are powers of 1000).

    Returns:
        The cost; NaN if the value is none.
    """
    if value is None or is_number(value):
        return value
    match = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else math.nan


def _shown(amount: float) -> str:
    """Write a cost as :func:`read_amount` reads it."""
    unit = [unit for unit, scale in _UNITS.items() if amount >= scale or not unit][-1]
    return f"{amount / _UNITS[unit]:g}{unit}"


def _share_faults(shares: dict[Any, Any], amounts: dict[str, float]) -> list[str]:
    if not shares and not amounts:
        return [f"sparsity is empty, allowed: a share for any of {', '.join(COUNTS)}"]
    faults = []
    for count, share in shares.items():
        if count not in COUNTS:
            faults.append(f"sparsity names {count!r}, allowed: {', '.join(COUNTS)}")
        if not is_number(share) or not 0 < share < 1:
            faults.append(f"sparsity.{count} is {share!r}, allowed: between 0 and 1")
    if {"parameters", "published"} <= shares.keys() | amounts.keys():
        faults.append("sparsity names parameters and published, allowed: one of the two")
    return faults


class Lagrangian(torch.nn.Module):
    """Penalty l1 (s - t) + l2 (s - t)^2 on sparsity s and target t (Wang et al. 2020, eq. 8).

    The two multipliers are trained by gradient ascent; every count has its own pair. Of several counts,
    those that fall short of their targets are penalized. If none does, only the one closest to its target
    is, so that a count which a tighter one drags beyond its target is not pulled back.

    Args:
        counts: counts of the budget.
    """

    def __init__(self, counts: Iterable[str] = ("parameters",)) -> None:
        super().__init__()
        self.counts = tuple(counts)
        self.multipliers = torch.nn.Parameter(torch.zeros(len(self.counts), 2))

    def forward(self, sparsity: dict[str, Tensor], targets: dict[str, float]) -> Tensor:
        """Return the penalty, 0-d, given sparsity (0-d) and target of each count."""
        gap = torch.stack([sparsity[count] - targets[count] for count in self.counts])
        gap = gap.to(self.multipliers)
        penalized = (gap < 0) | (gap == gap.min())
        return ((self.multipliers[:, 0] * gap + self.multipliers[:, 1] * gap.square()) * penalized).sum()
