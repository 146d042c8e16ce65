"""Results below folders of ``superb run``, as a report shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ResultError
from ..scoring import model_results, score_file
from ..scoring.model_results import ModelResults
from ..scoring.score_file import ScoreRecord
from .tables import Summary


@dataclass(frozen=True)
class Collection:
    """Results that compare with each other.

    Attributes:
        summary: of the models.
        records: ``score.json`` of each task that is in it.
        left_out: one line on each that is not.
    """

    summary: Summary
    records: Sequence[ScoreRecord]
    left_out: Sequence[str]


def collect(
    folders: list[Path],
    benchmark: str = "",
    is_shown: Callable[[ModelResults], bool] = lambda published: True,
) -> Collection:
    """Read all results below some folders.

    Args:
        folders: of ``superb run``.
        benchmark: by default SUPERB, or the only one that there are results of.
        is_shown: selects the published models beside results of SUPERB.

    Raises:
        ResultError: a folder holds no results or some that do not compare, or none may be reported.
    """
    records = score_file.collect(folders)
    name, chosen = score_file.of_benchmark([each for each in records if not each.caution], benchmark)
    left_out = []
    for record in (each for each in records if each not in chosen):
        reason = "; ".join(filter(None, (record.caution, *record.deviations))) or f"of {record.benchmark}"
        left_out.append(f"{record.task} of {record.upstream}: {reason}")
    runs = model_results.from_records(chosen)
    if not runs:
        raise ResultError(f"no result that belongs into a report; left out: {'; '.join(left_out)}")
    summary = Summary(runs, benchmark=name, remarks=_remarks(chosen))
    if summary.has_points:
        others = [model for model in model_results.published() if is_shown(model)]
        summary = Summary(runs, others, benchmark=name, remarks=summary.remarks)
    return Collection(summary, chosen, left_out)


def _remarks(records: Iterable[ScoreRecord]) -> list[str]:
    """Return how results of a report were made in another way than their benchmark's."""
    remarks = [
        f"{record.upstream}, {record.task}: {'; '.join(record.deviations)}."
        for record in records
        if record.deviations
    ]
    unnamed = sorted({record.upstream for record in records if not record.benchmark})
    if unnamed:
        remarks.append(f"Results of {', '.join(unnamed)} that name no benchmark count as SUPERB's.")
    return list(dict.fromkeys(remarks))
