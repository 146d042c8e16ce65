"""Description of a SUPERB task: the dataclasses that each module of this package fills in.

The shortest task::

    TASK = SuperbTask(
        name="SID",
        title="speaker identification",
        downstream="voxceleb1",
        metrics=(Metric("acc", "Acc", "%", HIGHER, TEST_ACCURACY),),
    )

Everything else has a default: an extra task that is trained as a whole, evaluated with the checkpoint that
was best on the development set, free to reuse hidden states, and not part of a submission.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, ResultError
from ...utils.config_io import is_number
from ..metrics.by_voice import StatisticReader
from ..metrics.parsers import Output, Parser
from ..submission.item_rules import ItemRules, PredictedItem

if TYPE_CHECKING:
    from ..scoring.uncertainty import Statistic

HIGHER, LOWER = "higher", "lower"
SUPERB, SUPERB_SG, EXTRA = TRACKS = ("SUPERB", "SUPERB-SG", "extra")
RUNNER_PACKAGES = ("s3prl", "tensorboardX")  # imported by s3prl's runner, whatever the task

AudioList = Callable[[Mapping[str, Any]], Mapping[str, Iterable[Path]] | Iterable[Path]]
"""From the configuration of run_downstream to the task's audio files: split -> files, or files alone.

Splits whose names end in ``targets`` hold what a model is to produce; no hidden states are computed of them.
"""

FormatCheck = Callable[[Mapping[str, bytes]], "PredictionContent"]
"""Check of a prediction, as in :mod:`..submission.prediction_formats`: name below the entry -> content."""


@dataclass(frozen=True)
class Metric:
    """One number of a task, in the unit of the leaderboard.

    Args:
        name: key in ``score.json``.
        title: heading of a column.
        unit: ``%``, ``x100``, ``dB`` or nothing.
        better: ``higher`` or ``lower``.
        read: parser of the number in the output of an evaluation.
        fbank: reference point of 0 points, the result of filter bank features.
        sota: reference point of 1000 points; ``None`` for both if the metric gives no points.
        part: the only part of the task that it comes from; empty averages all parts.
        optional: whether a finished task may lack it.
        extra: SUPERB does not report it; a recipe asks for it by name (``extra_metrics``).
        statistic: reader of the same number as a function of how often each voice counts, for its standard
            error; for tasks of one part.
    """

    name: str
    title: str
    unit: str
    better: str
    read: Parser
    fbank: float | None = None
    sota: float | None = None
    part: str = ""
    optional: bool = False
    extra: bool = False
    statistic: StatisticReader | None = None

    def points(self, value: float) -> float:
        """Return 1000 (x - FBANK) / (SOTA - FBANK), not clipped.

        Raises:
            ResultError: the metric has no reference points.
        """
        if self.fbank is None or self.sota is None:
            raise ResultError(f"{self.name} has no reference points")
        return 1000 * (value - self.fbank) / (self.sota - self.fbank)

    def fault(self, value: object) -> str:
        """Describe the fault of a value; empty if it has none."""
        low = 0.0 if self.unit == "%" else -math.inf
        high = 100.0 if self.unit == "%" and self.better == HIGHER else math.inf
        if is_number(value) and math.isfinite(value) and low <= value <= high:
            return ""
        span = {(0.0, 100.0): ", 0 to 100", (0.0, math.inf): ", 0 or more"}.get((low, high), "")
        return f"{self.name} is {value!r}, allowed: a number{f' in {self.unit}' if self.unit else ''}{span}"


@dataclass(frozen=True)
class TaskPart:
    """A part of a task that is trained on its own: a fold, a language, a speaker.

    Args:
        name: its folder below the task's, empty for a task of one part.
        override: change of the recipe's configuration for this part, as ``FIELD=VALUE``.
    """

    name: str = ""
    override: str = ""


@dataclass(frozen=True)
class FeatureReuse:
    """Reuse of cached hidden states, which takes waveforms that come again.

    Args:
        training: the same from epoch to epoch.
        evaluation: the same from one evaluation to the next.
        reason: what s3prl's data set does to the waveforms; shown where nothing is cached.
    """

    training: bool = True
    evaluation: bool = True
    reason: str = "whole files"


@dataclass(frozen=True)
class PredictionContent:
    """Result of checking a prediction.

    Args:
        items: number of utterances, trials or recordings.
        faults: what keeps the site from scoring it, or from scoring it correctly.
        predicted: the items themselves, where the format has such.
    """

    items: int
    faults: tuple[str, ...] = ()
    predicted: tuple[PredictedItem, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """A file of a submission, or a folder of files.

    Args:
        entry: its path below ``predict/``.
        source: what s3prl writes, below the folder of the part.
        format: check of its content.
        part: the part of the task that writes it.
        files: for a folder, the pattern of the files in it; empty for a single file.
        count: items in SUPERB's test set; 0 if that is not known for sure.
        origin: source of the count.
        optional: whether a submission of the task is complete without it.
        least: fewest items, where ``count`` is the most that there can be; by default ``count``.
        rules: what is known of the items of SUPERB's test set.
        max_bytes: size of a file beyond which it is not read.
    """

    entry: str
    source: str
    format: FormatCheck
    part: str = ""
    files: str = ""
    count: int = 0
    origin: str = ""
    optional: bool = False
    least: int = 0
    rules: ItemRules | None = None
    max_bytes: int = 2**24

    def check(
        self, files: Mapping[str, bytes], any_count: bool = False, data: Path | None = None
    ) -> PredictionContent:
        """Check the content of this prediction.

        Args:
            files: name below the entry -> content; a single file has the empty name.
            any_count: accept another test set than SUPERB's, with any items.
            data: folder of the corpora, whose lists say what has to be there.
        """
        try:
            content = self.format(files)
        except ResultError as error:
            return PredictionContent(0, (str(error),))
        if any_count:
            return content
        faults = list(content.faults)
        if self.rules is not None:
            faults += self.rules.faults(content.predicted, data)
        if fault := self.count_fault(content.items):
            faults.append(fault)
        return replace(content, faults=tuple(faults))

    def count_fault(self, items: int) -> str:
        """Describe the fault of a number of items; empty if SUPERB's test set may have as many."""
        least = self.least or self.count
        if least <= items <= self.count or not self.count:
            return ""
        allowed = f"{least} to {self.count}" if least < self.count else str(self.count)
        return f"holds {items} items, allowed: {allowed} ({self.origin})"


@dataclass(frozen=True, kw_only=True)
class SuperbTask:
    """A task of SUPERB.

    Args:
        name: as on the leaderboard; in lower case its folder in a run and in ``downstream_recipes``.
        title: what it is about.
        downstream: s3prl's name, as after ``-d``.
        metrics: in the order of the leaderboard.
        track: ``SUPERB`` (the ten tasks of the score), ``SUPERB-SG`` or ``extra``.
        position: place in tables, ascending; by default after the tasks that ship.
        parts: what is trained on its own.
        split: the test set, as after s3prl's ``-t``.
        checkpoint: file name of the checkpoint to evaluate. A pattern such as ``states-*.ckpt`` evaluates
            each of them and takes the best; empty means that nothing is trained and every hidden state is
            tried.
        tried: how many checkpoints a pattern tries, evenly over the training; 0 for all that were saved.
        dev_better: ``higher`` or ``lower`` for s3prl's score on the development set; by default as for the
            first metric.
        shares_batches: several processes train on different batches; s3prl gives some tasks' processes all
            the same ones.
        packages: modules that s3prl imports for this task beside its own requirements; ``MODULE=PACKAGE``
            where the package index knows them by another name.
        blocked: returns why the task cannot run on this machine, beyond missing ``packages``, and what to do
            about it; empty if it can.
        reuse: whether its hidden states are worth caching.
        audio: lists its audio, which is checked before the training, is part of the key of a result, and
            tells the size of a cache; ``None`` if that cannot be told.
        predictions: its share of a submission.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    name: str
    title: str
    downstream: str
    metrics: tuple[Metric, ...]
    track: str = EXTRA
    position: int = 1000
    parts: tuple[TaskPart, ...] = (TaskPart(),)
    split: str = "test"
    checkpoint: str = "dev-best.ckpt"
    tried: int = 0
    shares_batches: bool = True
    dev_better: str = ""
    packages: tuple[str, ...] = ()
    blocked: Callable[[], str] | None = None
    reuse: FeatureReuse = FeatureReuse()
    audio: AudioList | None = None
    predictions: tuple[Prediction, ...] = ()

    def __post_init__(self) -> None:
        ConfigError.raise_for(f"task {self.name}", self._faults())

    def _faults(self) -> Iterator[str]:
        if not re.fullmatch(r"\w[\w-]*", self.name):
            yield f"name is {self.name!r}, allowed: letters, digits, - and _"
        if not self.metrics:
            yield "metrics is empty, allowed: one metric or more"
        if self.track not in TRACKS:
            yield f"track is {self.track!r}, allowed: {', '.join(TRACKS)}"
        if self.dev_better not in ("", HIGHER, LOWER):
            yield f"dev_better is {self.dev_better!r}, allowed: {HIGHER}, {LOWER}"
        names = [part.name for part in self.parts]
        owners = [(metric.name, metric.part) for metric in self.metrics if metric.part]  # else of all parts
        owners += [(prediction.entry, prediction.part) for prediction in self.predictions]
        for title, part in owners:
            if part not in names:
                yield f"{title} is of part {part!r}, allowed: {', '.join(map(repr, names))}"

    @property
    def folder(self) -> str:
        """Name of its folder in a run and in ``downstream_recipes``."""
        return self.name.lower()

    @property
    def trained(self) -> bool:
        """True unless hidden states are evaluated without a training."""
        return bool(self.checkpoint)

    @property
    def tries_checkpoints(self) -> bool:
        """True if several checkpoints are evaluated and the best one counts."""
        return "*" in self.checkpoint

    @property
    def can_sweep(self) -> bool:
        """True if learning rates can be compared, since s3prl scores the task on a development set."""
        return self.trained and not self.tries_checkpoints

    def metric(self, name: str) -> Metric:
        """Return the metric of that name.

        Raises:
            ResultError: there is none; the message lists them.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise ResultError(f"{self.name} has no metric {name!r}, allowed: {self._metric_names()}")

    def faults(self, metrics: Mapping[str, object]) -> list[str]:
        """List the faults in the metrics of a finished task."""
        own = {metric.name: metric for metric in self.metrics}
        return [
            *(
                f"{name} is no metric of {self.name}, allowed: {self._metric_names()}"
                for name in metrics
                if name not in own
            ),
            *(
                f"{name} is missing"
                for name, m in own.items()
                if name not in metrics and not (m.optional or m.extra)
            ),
            *(fault for name, v in metrics.items() if name in own and (fault := own[name].fault(v))),
        ]

    def _metric_names(self) -> str:
        return ", ".join(metric.name for metric in self.metrics)

    def read(self, outputs: Mapping[str, Output], extra: Collection[str] = ()) -> dict[str, float]:
        """Read the metrics of a finished task from what s3prl's evaluations left.

        Args:
            outputs: name of each part (empty for a task of one part) -> what its evaluation left.
            extra: names of metrics to report that SUPERB does not.

        Raises:
            ResultError: a part is missing, or a number was not found; the message says where it
                was looked for.
        """
        names = [part.name for part in self.parts]
        missing = [name for name in names if name not in outputs]
        if missing:
            raise ResultError(f"{self.name}: no output of {', '.join(missing) or 'its evaluation'}")
        metrics: dict[str, float] = {}
        for metric in (each for each in self.metrics if not each.extra or each.name in extra):
            parts = [metric.part] if metric.part else names
            try:
                values = [metric.read(outputs[name]) for name in parts]
            except ResultError as error:
                if metric.optional:
                    continue
                raise ResultError(f"{self.name}, {metric.name}: {error}") from error
            metrics[metric.name] = sum(values) / len(values)
        return metrics

    def statistics(self, outputs: Mapping[str, Output], extra: Collection[str] = ()) -> dict[str, Statistic]:
        """Read the metrics of a finished task by voice, as far as predictions are there.

        Args:
            outputs: as for :meth:`read`.
            extra: as for :meth:`read`.
        """
        statistics: dict[str, Statistic] = {}
        for metric in (each for each in self.metrics if not each.extra or each.name in extra):
            if metric.statistic is not None and "" in outputs:
                with suppress(ResultError):  # not every version of s3prl writes all predictions
                    statistics[metric.name] = metric.statistic(outputs[""])
        return statistics

    def count_items(self, folder: Path) -> int | None:
        """Count the test items in the predictions of a finished task; ``None`` if that cannot be told.

        Args:
            folder: the task's folder of a run.
        """
        counts = []
        for prediction in self._counted():
            path = folder / prediction.part / prediction.source
            try:
                files = {file.name: b"" for file in path.glob(prediction.files)} if prediction.files else {}
                counts.append(len(files) or prediction.format({"": path.read_bytes()}).items)
            except (OSError, ResultError):
                return None
        return sum(counts) or None

    def items_fault(self, items: int) -> str:
        """Describe how a number of test items differs from SUPERB's; empty if it does not."""
        most = sum(prediction.count for prediction in self._counted())
        least = sum(prediction.least or prediction.count for prediction in self._counted())
        allowed = f"{least} to {most}" if least < most else str(most)
        return "" if least <= items <= most or not most else f"{items} test items instead of {allowed}"

    def _counted(self) -> list[Prediction]:
        return [prediction for prediction in self.predictions if prediction.count and not prediction.optional]

    def missing_packages(self) -> list[str]:
        """Return what has to be installed to run the task, by the names of the package index."""
        pairs = (entry.partition("=") for entry in (*RUNNER_PACKAGES, *self.packages))
        return [package or module for module, _, package in pairs if _is_missing(module)]


def _is_missing(module: str) -> bool:
    return module not in sys.modules and find_spec(module) is None
