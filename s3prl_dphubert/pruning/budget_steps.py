"""Budget whose target stops at several sizes on its way to the smallest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from ..errors import ConfigError
from .budget import Budget


@dataclass(frozen=True)
class SteppedBudget(Budget):
    """Budget of the smallest size, in one count, whose target rises to each size and stays there.

    Its constraint is ``projection``, since the gates have to be on the target at the end of each stay.

    Args:
        stops: share of the teacher to remove at each size, rising.
        updates: updates of the training, of which each size has the same number.
    """

    stops: tuple[float, ...] = ()
    updates: int = 0

    @classmethod
    def of(cls, budgets: Sequence[Budget], updates: int) -> SteppedBudget:
        """Build it from the budgets of all sizes, in shares, from the largest model to the smallest.

        Raises:
            ConfigError: the sizes do not shrink, or there are fewer updates than sizes.
        """
        (count,) = budgets[-1].counts
        stops = tuple(budget.shares[count] for budget in budgets)
        faults = []
        if any(after <= before for before, after in pairwise(stops)):
            shown = ", ".join(f"{stop:.3f}" for stop in stops)
            faults.append(
                f"sizes remove {shown} of the {count}, allowed: from the largest model to the smallest"
            )
        if updates < len(stops):
            faults.append(f"sizes are {len(stops)}, allowed: at most the updates of stage 1 ({updates})")
        ConfigError.raise_for("run", faults)
        values = {field.name: getattr(budgets[-1], field.name) for field in fields(Budget)}
        return cls(**values | {"constraint": "projection"}, stops=stops, updates=updates)

    @property
    def ends(self) -> list[int]:
        """Updates after which each size is complete."""
        return [self.updates * (i + 1) // len(self.stops) for i in range(len(self.stops))]

    def targets(self, update: int, initial: dict[str, float] | None = None) -> dict[str, float]:
        """Return the target sparsity at an update, counted from 0, as :meth:`Budget.targets` does."""
        part, begin, _ = self._part(update)
        (count,) = self.counts
        first = self.stops[part - 1] if part else min((initial or {}).get(count, 0.0), self.stops[0])
        progress = self.progress(update - begin, self.warmup // len(self.stops))
        return {count: first + (self.stops[part] - first) * progress}

    def may_move(self, update: int, updates: int) -> tuple[bool, bool]:
        """Return whether projection may open and close gates, as :meth:`Budget.may_move` of each size."""
        _, begin, end = self._part(update)
        return update - begin >= self.warmup // len(self.stops), 2 * (update - begin) >= end - begin

    def _part(self, update: int) -> tuple[int, int, int]:
        """Return the size that an update belongs to, its first update and the one after its last."""
        ends = self.ends
        part = next((i for i, end in enumerate(ends) if update < end), len(ends) - 1)
        return part, ends[part - 1] if part else 0, ends[part]
