"""A budget: how much of the teacher's cost has to go, and the penalty that brings it about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..errors import ConfigError
from ..model.cost import SUPERB_LENGTHS, Number, Widths, macs, parameters
from ..model.model_config import ModelConfig
from ..utils.type_checks import is_number
from .latency import latency, read_table

COUNTS = ("parameters", "published", "macs", "superb_macs", "latency")
"""What can be counted: parameters, in training with or without (``published``) the relative
positions of WavLM; MACs of one utterance; MACs summed over the SUPERB challenge's utterances; seconds of
one utterance on the machine of a table."""


@dataclass(frozen=True)
class Budget:
    """The share of the teacher's cost to remove, in one count or in several at once.

    Args:
        sparsity: count -> share of the teacher that has to go; ``{"parameters": 0.75}`` keeps a
            quarter of the parameters. A plain number is a share of the parameters. Other
            counts: ``macs`` of one utterance of ``seconds``; ``superb_macs``, the sum over the
            SUPERB challenge's utterances; ``published``, parameters which in training leave
            out WavLM's relative positions, as the published formula does; ``latency``, seconds on
            the machine of ``table``.
        warmup: updates in which the targets rise linearly from 0.
        seconds: length of the utterance whose MACs count.
        round_to: cut conv channels and feed-forward units to multiples of this, which kernels
            like (8); a group that stays whole keeps its size.
        table: what units cost in time, written by ``bench --table``; needed for ``latency``.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    sparsity: float | dict[str, float] = 0.75
    warmup: int = 5000
    seconds: float = 10.0
    round_to: int = 1
    table: str | None = None

    def __post_init__(self) -> None:
        given: Any = self.sparsity
        shares = dict(given) if isinstance(given, dict) else {"parameters": given}
        order = {count: shares[count] for count in COUNTS if count in shares}
        object.__setattr__(self, "sparsity", order | shares)
        faults = _share_faults(shares)
        if self.warmup < 0:
            faults.append(f"warmup is {self.warmup}, allowed: 0 or more")
        if not self.seconds >= 0.1:
            faults.append(f"seconds is {self.seconds}, allowed: 0.1 or more")
        if "latency" in shares and not self.table:
            faults.append("table is missing, allowed with latency: a file that bench --table wrote")
        if self.round_to < 1:
            faults.append(f"round_to is {self.round_to}, allowed: 1 or more")
        ConfigError.raise_for("budget", faults)

    @property
    def shares(self) -> dict[str, float]:
        """Count -> share of the teacher that has to go, in the order of ``COUNTS``."""
        return dict(self.sparsity)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return "sparsity " + ", ".join(f"{share:g} in {count}" for count, share in self.shares.items())

    def costs(
        self, config: ModelConfig, widths: Widths | None = None, training: bool = False
    ) -> dict[str, Number]:
        """Count -> cost of a shape under open units.

        Args:
            config: the shape before the gates.
            widths: open units; ``None`` counts the model as it stands.
            training: count ``published`` by its formula, not by the parameters there are.
        """
        return {count: self._cost(count, config, widths, training) for count in self.shares}

    def _cost(self, count: str, config: ModelConfig, widths: Widths | None, training: bool) -> Number:
        if count == "macs":
            return macs(config, round(self.seconds * SAMPLE_RATE), widths)
        if count == "latency":
            return latency(config, read_table(str(self.table)), widths)
        if count == "superb_macs":
            return macs(config, SUPERB_LENGTHS, widths)
        return parameters(config, widths, published=training and count == "published")

    def limits(self, full: dict[str, Number]) -> dict[str, float]:
        """Count -> the most that the pruned model may cost, given the teacher's costs."""
        return {count: (1 - share) * float(full[count]) for count, share in self.shares.items()}

    def targets(self, update: int, begin: dict[str, float] | None = None) -> dict[str, float]:
        """Count -> sparsity wanted at that update (counted from 0).

        The targets rise from ``begin``, the sparsity of a student that is smaller than its teacher
        before any pruning; from 0 by default.
        """
        if update >= self.warmup:
            return self.shares
        first = {count: min((begin or {}).get(count, 0.0), share) for count, share in self.shares.items()}
        done = update / self.warmup
        return {count: first[count] + (share - first[count]) * done for count, share in self.shares.items()}


def _share_faults(shares: dict[Any, Any]) -> list[str]:
    if not shares:
        return [f"sparsity is empty, allowed: a share for any of {', '.join(COUNTS)}"]
    faults = []
    for count, share in shares.items():
        if count not in COUNTS:
            faults.append(f"sparsity names {count!r}, allowed: {', '.join(COUNTS)}")
        if not is_number(share) or not 0 < share < 1:
            faults.append(f"sparsity.{count} is {share!r}, allowed: between 0 and 1")
    if {"parameters", "published"} <= shares.keys():
        faults.append("sparsity names parameters and published, allowed: one of the two")
    return faults


class Lagrangian(torch.nn.Module):
    """Penalty l1 (s - t) + l2 (s - t)^2 whose two multipliers ascend (Wang et al. 2020, eq. 8).

    Every count has its own pair. Of several, each one that falls short of its target counts;
    when none does, the one closest to its target does alone, so that a count which a tighter
    one drags beyond its target is not pulled back.
    """

    def __init__(self, counts: Iterable[str] = ("parameters",)) -> None:
        super().__init__()
        self.counts = tuple(counts)
        self.multipliers = torch.nn.Parameter(torch.zeros(len(self.counts), 2))

    def forward(self, sparsity: dict[str, Tensor], targets: dict[str, float]) -> Tensor:
        """Sparsity (0-d) and target of each count -> penalty, 0-d."""
        gap = torch.stack([sparsity[count] - targets[count] for count in self.counts])
        gap = gap.to(self.multipliers)
        matters = (gap < 0) | (gap == gap.min())
        return ((self.multipliers[:, 0] * gap + self.multipliers[:, 1] * gap.square()) * matters).sum()
