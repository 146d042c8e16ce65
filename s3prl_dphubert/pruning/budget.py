"""Budget of a pruned model, and the penalty that trains a gated model towards it."""

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
from ..utils.config_io import is_number
from .latency import latency, read_table

COUNTS = ("parameters", "published", "macs", "superb_macs", "latency")
"""Quantities that a budget may limit: parameters, in training with or without (``published``) the
relative positions of WavLM; MACs of one utterance; MACs summed over the utterances of the SUPERB challenge;
seconds that one utterance takes on the machine of a table."""


@dataclass(frozen=True)
class Budget:
    """Share of the teacher's cost to remove, in one count or in several at once.

    Args:
        sparsity: count -> share of the teacher to remove; ``{"parameters": 0.75}`` keeps a quarter of the
            parameters. A plain number is a share of the parameters. Other counts are ``macs`` of one
            utterance of ``seconds``; ``superb_macs``, the sum over the utterances of the SUPERB
            challenge; ``published``, parameters without WavLM's relative positions in training, as in
            the published formula; ``latency``, seconds on the machine of ``table``.
        warmup: updates in which the targets rise linearly from 0.
        seconds: length in seconds of the utterance whose MACs are counted.
        round_to: multiple to which conv channels and feed-forward units are cut, such as 8 for faster
            kernels; a group that is not cut keeps its size.
        table: file with the latency of units, written by ``bench --table``; needed for ``latency``.
        tolerance: largest distance between the sparsity that the gates expect after stage 1 and the target.
            Further away the model is not pruned, since the cut would take units that it still relies on.
            The default is a fifth of what a model of sparsity 0.75 keeps; trained gates end within 0.01.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    sparsity: float | dict[str, float] = 0.75
    warmup: int = 5000
    seconds: float = 10.0
    round_to: int = 1
    table: str | None = None
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        sparsity: Any = self.sparsity
        shares = dict(sparsity) if isinstance(sparsity, dict) else {"parameters": sparsity}
        order = {count: shares[count] for count in COUNTS if count in shares}
        object.__setattr__(self, "sparsity", order | shares)
        faults = _share_faults(shares)
        if self.warmup < 0:
            faults.append(f"warmup is {self.warmup}, allowed: 0 or more")
        if not self.seconds >= 0.1:
            faults.append(f"seconds is {self.seconds}, allowed: 0.1 or more")
        if "latency" in shares and not self.table:
            faults.append("table is missing, allowed with latency: a file that bench --table wrote")
        if not 0 < self.tolerance <= 1:
            faults.append(f"tolerance is {self.tolerance}, allowed: above 0 to 1")
        if self.round_to < 1:
            faults.append(f"round_to is {self.round_to}, allowed: 1 or more")
        ConfigError.raise_for("budget", faults)

    @property
    def shares(self) -> dict[str, float]:
        """Count -> share of the teacher to remove, in the order of ``COUNTS``."""
        return dict(self.sparsity)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return "sparsity " + ", ".join(f"{share:g} in {count}" for count, share in self.shares.items())

    def costs(
        self, config: ModelConfig, widths: Widths | None = None, training: bool = False
    ) -> dict[str, Number]:
        """Return the cost of a model in each count.

        Args:
            config: shape before pruning.
            widths: open units, as numbers or tensors; all units by default.
            training: count ``published`` by its formula, not by the actual parameters.
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
        """Return the highest cost of the pruned model in each count, given the costs of the teacher."""
        return {count: (1 - share) * float(full[count]) for count, share in self.shares.items()}

    def targets(self, update: int, initial: dict[str, float] | None = None) -> dict[str, float]:
        """Return the target sparsity of each count at an update, counted from 0.

        Args:
            update: number of the update.
            initial: sparsity from which the targets rise, of a student that is smaller than its teacher
                before any pruning; 0 by default.
        """
        if update >= self.warmup:
            return self.shares
        first = {count: min((initial or {}).get(count, 0.0), share) for count, share in self.shares.items()}
        progress = update / self.warmup
        return {
            count: first[count] + (share - first[count]) * progress for count, share in self.shares.items()
        }


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
