"""Paired differences of two models in all probes, and the order of models that a valid probe must show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import ResultError
from ..superb.scoring.uncertainty import NO_CONCLUSION, Estimate, paired_difference
from .probe_record import HEADS, PROBES, ProbeRecord, direction


@dataclass(frozen=True)
class ProbeDifference:
    """Difference of two models in one probe under one head.

    Attributes:
        probe: name of the probe.
        head: name of the head.
        first: name of a model.
        second: name of the model that is subtracted from it.
        estimate: the difference in percent, positive where ``first`` is the better one.
    """

    probe: str
    head: str
    first: str
    second: str
    estimate: Estimate

    @property
    def verdict(self) -> str:
        """Name the better model, or say that there is no conclusion since the interval holds 0."""
        if self.estimate.conclusion == NO_CONCLUSION:
            return NO_CONCLUSION
        return f"{self.first if self.estimate.value > 0 else self.second} is better"


def differences(
    first: ProbeRecord | Sequence[ProbeRecord], second: ProbeRecord | Sequence[ProbeRecord]
) -> list[ProbeDifference]:
    """Compare two models, or two recipes that made several models with different seeds each.

    Args:
        first: record of a model, or those of a recipe's models.
        second: the same of what it is compared with.

    Raises:
        ResultError: the records share no probe.
    """
    sides = [[side] if isinstance(side, ProbeRecord) else list(side) for side in (first, second)]
    names = [" / ".join(dict.fromkeys(record.model for record in side)) for side in sides]
    results = []
    for probe in PROBES:
        for head in HEADS:
            scores = [[record.score(probe, head) for record in side] for side in sides]
            if any(score is None for side in scores for score in side):
                continue
            pair = [[score.statistic for score in side if score is not None] for side in scores]
            difference = paired_difference(*(pair if direction(probe) > 0 else reversed(pair)))
            results.append(ProbeDifference(probe, head, names[0], names[1], difference))
    if not results:
        raise ResultError(f"{names[0]} and {names[1]} share no probe")
    return results


@dataclass(frozen=True)
class ProbeOrder:
    """Scores of models that a valid probe ranks in the order given.

    Attributes:
        probe: name of the probe.
        head: name of the head.
        steps: difference of each model from the one before it, positive where it is better.
        ends: difference of the last model from the first.
    """

    probe: str
    head: str
    steps: tuple[ProbeDifference, ...]
    ends: ProbeDifference

    @property
    def is_valid(self) -> bool:
        """True if every model is better than the one before it, and the last than the first beyond chance."""
        rising = all(step.estimate.value > 0 for step in self.steps)
        return rising and self.ends.estimate.conclusion != NO_CONCLUSION


def orders(records: Sequence[ProbeRecord]) -> list[ProbeOrder]:
    """Check the order of models of known quality, such as random weights, an early and a late checkpoint.

    A probe that ranks them in another way cannot rank models of unknown quality.

    Args:
        records: from the worst model to the best.

    Raises:
        ResultError: there are fewer than two, or they share no probe.
    """
    if len(records) < 2:
        raise ResultError(
            f"--order has {len(records)} record, allowed: 2 or more, from the worst to the best"
        )
    steps: dict[tuple[str, str], list[ProbeDifference]] = {}
    for worse, better in pairwise(records):
        for difference in differences(better, worse):
            steps.setdefault((difference.probe, difference.head), []).append(difference)
    return [
        ProbeOrder(ends.probe, ends.head, tuple(listed), ends)
        for ends in differences(records[-1], records[0])
        if len(listed := steps.get((ends.probe, ends.head), [])) == len(records) - 1
    ]
