"""Statistics of a benchmark: one row for each subject and batch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.cost import macs
from .subjects import MatrixProducts, Subject
from .turn_log import TurnLog
from .workload import Workload


@dataclass(frozen=True)
class SpeedRow:
    """Speed and memory of a subject with a batch.

    Times are seconds of compute per second of audio.

    Args:
        subject: name of the subject.
        shape: name of its shape.
        precision: precision of its products.
        workload: name of the batch.
        audio: seconds of audio in the batch, without padding.
        best: time of its best run.
        median: median over its runs.
        low: lower quartile.
        high: upper quartile.
        products: time of plain matrix products with as many MACs, if measured.
        ratios: baseline -> median over turns of this subject's time relative to the baseline's in that turn.
        peak: peak memory of its process in bytes, if measured.
        runs: number of runs.
    """

    subject: str
    shape: str
    precision: str
    workload: str
    audio: float
    best: float
    median: float
    low: float
    high: float
    products: float | None
    ratios: Mapping[str, float]
    peak: int | None
    runs: int


def rows(log: TurnLog, subjects: Sequence[Subject], workloads: Sequence[Workload]) -> list[SpeedRow]:
    """Return the rows of all subjects that are models, batch by batch."""
    table = []
    for workload in workloads:
        turns = [entry["seconds"] for entry in log.select("turn", workload=workload.name)]
        if not turns:
            continue
        rates = {
            s.precision: statistics.median(turn[s.name] for turn in turns) / s.macs
            for s in subjects
            if isinstance(s, MatrixProducts)
        }
        peaks: dict[str, Any] = next((e["bytes"] for e in log.select("peak", workload=workload.name)), {})
        models = [subject for subject in subjects if not isinstance(subject, MatrixProducts)]
        table += [_row(s, models, workload, turns, rates, peaks.get(s.name)) for s in models]
    return table


def baselines(subjects: Sequence[Subject]) -> list[str]:
    """Return the baselines of the ratios: the published pruned model, and HuBERT Base elsewhere or here."""
    names = [subject.name for subject in subjects]
    prefixes = ("published code, pruned", "transformers, HuBERT Base", "HuBERT Base, not folded")
    first = (next((name for name in names if name.startswith(prefix)), None) for prefix in prefixes)
    return [name for name in first if name is not None][:2]


def _row(
    subject: Subject,
    models: Sequence[Subject],
    workload: Workload,
    turns: Sequence[Mapping[str, float]],
    rates: Mapping[str, float],
    peak: int | None,
) -> SpeedRow:
    audio = sum(workload.seconds)
    times = sorted(turn[subject.name] / audio for turn in turns)
    low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    rate = rates.get(subject.precision)
    products = None
    if subject.config is not None and rate is not None:
        products = macs(subject.config, workload.samples) * rate / audio
    return SpeedRow(
        subject=subject.name,
        shape=subject.shape,
        precision=subject.precision,
        workload=workload.name,
        audio=audio,
        best=times[0],
        median=statistics.median(times),
        low=max(low, times[0]),
        high=min(high, times[-1]),
        products=products,
        ratios={
            name: statistics.median(turn[subject.name] / turn[name] for turn in turns)
            for name in baselines(models)
        },
        peak=peak,
        runs=len(times),
    )
