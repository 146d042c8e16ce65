"""What a SUPERB task is: where s3prl runs it, what it measures, what it predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import ResultError
from ...utils.type_checks import is_number
from ..metrics.parsers import Output, Reader

HIGHER, LOWER = "higher", "lower"
SUPERB, SUPERB_SG, EXTRA = "SUPERB", "SUPERB-SG", "extra"


@dataclass(frozen=True)
class Metric:
    """One number of a task, in the unit of the leaderboard.

    Args:
        name: key in ``score.json``.
        title: heading of a column.
        unit: ``%``, ``x100``, ``dB`` or nothing.
        better: ``higher`` or ``lower``.
        read: takes what an evaluation left and returns the number.
        fbank: reference point of 0 points, what filter bank features reach.
        sota: reference point of 1000 points; ``None`` for both means that no points are given.
        part: the one part of the task that it comes from; empty averages all parts.
        optional: whether a finished task may lack it.
    """

    name: str
    title: str
    unit: str
    better: str
    read: Reader
    fbank: float | None = None
    sota: float | None = None
    part: str = ""
    optional: bool = False

    def points(self, value: float) -> float:
        """1000 (x - FBANK) / (SOTA - FBANK), not clipped."""
        if self.fbank is None or self.sota is None:
            raise ResultError(f"{self.name} has no reference points")
        return 1000 * (value - self.fbank) / (self.sota - self.fbank)

    def fault(self, value: object) -> str:
        """What is wrong with a value, or nothing."""
        low = 0.0 if self.unit == "%" else -math.inf
        high = 100.0 if self.unit == "%" and self.better == HIGHER else math.inf
        if is_number(value) and math.isfinite(value) and low <= value <= high:
            return ""
        span = {(0.0, 100.0): ", 0 to 100", (0.0, math.inf): ", 0 or more"}.get((low, high), "")
        return f"{self.name} is {value!r}, allowed: a number{f' in {self.unit}' if self.unit else ''}{span}"


@dataclass(frozen=True)
class Part:
    """A part of a task that is trained on its own.

    Args:
        name: its folder below the task's, empty for a task of one part.
        config: the YAML in the folder of s3prl's downstream.
        override: what s3prl's ``-o`` takes for this part.
    """

    name: str = ""
    config: str = "config.yaml"
    override: str = ""


@dataclass(frozen=True)
class Prediction:
    """A file of a submission.

    Args:
        entry: its path below ``predict/``.
        source: the file or folder that s3prl writes, below the folder of the part.
        kind: its format, a key of ``predictions.KINDS``.
        part: the part of the task that writes it.
        count: how many items SUPERB's test set has; 0 when that is not known for sure.
        origin: where the count is from.
        optional: whether a task is complete without it.
    """

    entry: str
    source: str
    kind: str
    part: str = ""
    count: int = 0
    origin: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Task:
    """A task of SUPERB.

    Args:
        name: as on the leaderboard; in lower case its folder in a run and in the recipes.
        title: what it is about.
        track: ``SUPERB``, ``SUPERB-SG`` or ``extra``.
        downstream: s3prl's name, as after ``-d``.
        metrics: in the order of the leaderboard.
        predictions: what it gives to a submission; nothing where the site takes nothing.
        parts: what is trained on its own.
        best: the checkpoint to evaluate; a glob where several are tried, empty without training.
        split: what s3prl's ``-t`` takes.
        needs: what the reference given to the readers has to be.
        unverified: why the readers could not be tried on real output.
    """

    name: str
    title: str
    track: str
    downstream: str
    metrics: tuple[Metric, ...]
    predictions: tuple[Prediction, ...] = ()
    parts: tuple[Part, ...] = (Part(),)
    best: str = "dev-best.ckpt"
    split: str = "test"
    needs: str = ""
    unverified: str = ""

    @property
    def folder(self) -> str:
        """Name of its folder in a run and in ``downstream_recipes``."""
        return self.name.lower()

    @property
    def many(self) -> bool:
        """Whether several checkpoints are tried."""
        return "*" in self.best

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise ResultError(f"{self.name} has no metric {name!r}, allowed: {self.names()}")

    def names(self) -> str:
        """The names of its metrics, for messages."""
        return ", ".join(metric.name for metric in self.metrics)

    def faults(self, metrics: Mapping[str, object]) -> list[str]:
        """What is wrong with the metrics of a finished task."""
        known = {metric.name: metric for metric in self.metrics}
        found = [
            f"{name} is no metric of {self.name}, allowed: {self.names()}"
            for name in metrics
            if name not in known
        ]
        found += [f"{name} is missing" for name, m in known.items() if name not in metrics and not m.optional]
        found += [fault for name, v in metrics.items() if name in known and (fault := known[name].fault(v))]
        return found

    def read(self, outputs: Mapping[str, Output]) -> dict[str, float]:
        """Metrics of a finished task from what s3prl's evaluations left.

        Args:
            outputs: name of each part (empty for a task of one part) -> what its evaluation left.

        Raises:
            ResultError: a part is missing, or a number was not found; the message says where it
                was looked for.
        """
        names = [part.name for part in self.parts]
        missing = [name for name in names if name not in outputs]
        if missing:
            raise ResultError(f"{self.name}: no output of {', '.join(missing) or 'its evaluation'}")
        metrics: dict[str, float] = {}
        for metric in self.metrics:
            chosen = [metric.part] if metric.part else names
            try:
                values = [metric.read(outputs[name]) for name in chosen]
            except ResultError as error:
                if metric.optional:
                    continue
                raise ResultError(f"{self.name}, {metric.name}: {error}") from error
            metrics[metric.name] = sum(values) / len(values)
        return metrics
