"""Rows of a benchmark: what its turns say of every subject with every batch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.cost import macs
from .subjects import Products, Subject
from .turn_log import Record
from .workload import Workload


@dataclass(frozen=True)
class Row:
    """A subject with a batch.

    Args:
        subject: its name.
        shape: its model.
        precision: of its products.
        workload: the batch's name.
        audio: seconds of audio in the batch, padding excepted.
        best: seconds of compute per second of audio, of its best run.
        median: of the median of its runs.
        low: of the lower quartile.
        high: of the upper quartile.
        products: seconds per second that plain matrix products of as many MACs take, if known.
        ratios: baseline -> median, over turns, of this subject's time by the baseline's in the same turn.
        peak: bytes of its process.
        runs: how many.
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


def rows(record: Record, subjects: Sequence[Subject], workloads: Sequence[Workload]) -> list[Row]:
    """Rows of all subjects that are models, batch by batch."""
    found = []
    for workload in workloads:
        turns = [entry["seconds"] for entry in record.of("turn", workload=workload.name)]
        if not turns:
            continue
        rates = {
            s.precision: statistics.median(turn[s.name] for turn in turns) / s.macs
            for s in subjects
            if isinstance(s, Products)
        }
        peaks: dict[str, Any] = next((e["bytes"] for e in record.of("peak", workload=workload.name)), {})
        models = [subject for subject in subjects if not isinstance(subject, Products)]
        found += [_row(s, models, workload, turns, rates, peaks.get(s.name)) for s in models]
    return found


def baselines(subjects: Sequence[Subject]) -> list[str]:
    """What ratios are taken to: the published pruned model, and HuBERT Base elsewhere or else here."""
    names = [subject.name for subject in subjects]
    wanted = ("published code, pruned", "transformers, HuBERT Base", "HuBERT Base, not folded")
    found = [next((name for name in names if name.startswith(start)), None) for start in wanted]
    return [name for name in found if name is not None][:2]


def _row(
    subject: Subject,
    models: Sequence[Subject],
    workload: Workload,
    turns: Sequence[Mapping[str, float]],
    rates: Mapping[str, float],
    peak: int | None,
) -> Row:
    audio = sum(workload.seconds)
    times = sorted(turn[subject.name] / audio for turn in turns)
    low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    rate = rates.get(subject.precision)
    products = None
    if subject.config is not None and rate is not None:
        products = macs(subject.config, workload.samples) * rate / audio
    return Row(
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
