"""``score.json``: the result of a finished task; reports are made of these files alone."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import ConfigError, ResultError, shown
from ...utils.config_io import from_dict, type_faults
from ...utils.files import write_text
from ...utils.readers import read_json, read_record
from ..tasks import find
from ..tasks.spec import SUPERB, SuperbTask

FILE = "score.json"
FAILED = "failed.json"  # beside it, or in a part of the task: of the last run, if that failed
VERSION = 1
CHANGED = "with changes"  # follows the benchmark's name in results that do not compare with others of it


@dataclass(frozen=True)
class ScoreRecord:
    """One finished task of one upstream.

    Args:
        task: its name.
        upstream: what the report calls the model; the same for all its tasks and seeds.
        metrics: the task's metrics in the units of the leaderboard.
        seed: of the downstream's training.
        learning_rate: of the downstream; ``None`` for a task without training.
        s3prl: its version.
        date: when it was evaluated, ISO 8601.
        command: what evaluated it.
        parts: part -> its own metrics, where a task has several (folds, languages, speakers).
        parameters: of the upstream, if known.
        macs: of the upstream on SUPERB's utterances, if known.
        checkpoints: what was evaluated and why it was chosen; by part, or under the task's folder.
        versions: of the packages at work.
        caution: why it is excluded from scores and reports; empty if it is not.
        benchmark: the recipe's; empty in records of versions that did not write it, which count as SUPERB's.
        changes: values of the recipe that differ from the benchmark's, and other reasons why results differ.
        steps: of the downstream's training; ``None`` for a task without training.
        items: utterances, trials or recordings of the test set, if known.
        processes: that trained together.
        standard_errors: metric -> standard error over the voices of the test set, where predictions tell it.
        statistics: metric -> its sums by voice (:mod:`.stored_statistics`), for differences of models.
        layer_weights: weights of the upstream's hidden states that the downstream learnt, which sum to 1; by
            part, or under the task's folder.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    task: str
    upstream: str
    metrics: Mapping[str, float]
    seed: int
    learning_rate: float | None
    s3prl: str
    date: str
    command: str
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    parameters: int | None = None
    macs: int | None = None
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    caution: str = ""
    benchmark: str = ""
    changes: tuple[str, ...] = ()
    steps: int | None = None
    items: int | None = None
    processes: int = 1
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    statistics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layer_weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ConfigError.raise_for("score", type_faults(self) or self._faults())
        object.__setattr__(self, "task", find(self.task).name)

    def _faults(self) -> list[str]:
        try:
            task = find(self.task)
        except ResultError as error:
            return [str(error)]
        faults = task.faults(self.metrics)
        if not self.upstream.strip():
            faults.append("upstream is empty, allowed: a name")
        faults += self._part_faults(task)
        for name in ("standard_errors", "statistics"):
            if unknown := sorted(set(getattr(self, name)) - set(self.metrics)):
                faults.append(f"{name} has {', '.join(unknown)}, allowed: the metrics of the result")
        for name, weights in self.layer_weights.items():
            if not weights or any(not 0 <= weight <= 1 for weight in weights):
                faults.append(f"layer_weights has {name}: {shown(weights)}, allowed: numbers from 0 to 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            faults.append(f"learning_rate is {self.learning_rate}, allowed: more than 0")
        for name, least in (("parameters", 0), ("macs", 0), ("steps", 1), ("items", 1), ("processes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                faults.append(f"{name} is {value}, allowed: {least} or more")
        try:
            datetime.datetime.fromisoformat(self.date)
        except ValueError:
            faults.append(f"date is {self.date!r}, allowed: ISO 8601, as 2026-01-31T12:00:00")
        return faults

    @property
    def deviations(self) -> list[str]:
        """Differences from the way in which the benchmark's results are made."""
        deviations = list(self.changes)
        if self.benchmark in ("", SUPERB) and self.items is not None:
            deviations.append(find(self.task).items_fault(self.items))
        return [text for text in deviations if text]

    @property
    def comparable_with(self) -> str:
        """Name of the benchmark with whose results it compares."""
        return f"{self.benchmark or SUPERB}{f' {CHANGED}' if self.deviations else ''}"

    def _part_faults(self, task: SuperbTask) -> list[str]:
        names = {part.name for part in task.parts}
        faults = []
        for name, metrics in self.parts.items():
            if name not in names or not isinstance(metrics, Mapping):
                allowed = f"metrics of {', '.join(sorted(names))}" if names != {""} else "nothing"
                faults.append(f"parts has {name!r}: {metrics!r}, allowed: {allowed}")
                continue
            faults += [
                f"parts, {name}: {fault}" for fault in task.faults(metrics) if "is missing" not in fault
            ]
        return faults


def write(record: ScoreRecord, folder: Path, overwrite: bool = False) -> Path:
    """Write the ``score.json`` of a finished task.

    Raises:
        ResultError: there is one already, and ``overwrite`` is not set.
    """
    path = folder / FILE
    if path.exists() and not overwrite:
        raise ResultError(f"{path}: exists already; choose another folder or pass overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    values = {"version": VERSION, **asdict(record)}
    write_text(path, json.dumps(values, indent=2) + "\n")
    return path


def read(path: Path) -> ScoreRecord:
    """Read and check a ``score.json``.

    Raises:
        ResultError: it is damaged, of a newer version, or has unknown, missing or wrong fields.
    """
    values = read_json(path, ResultError)
    version = values.pop("version", None)
    if version != VERSION:
        raise ResultError(f"{path}: version is {version!r}, allowed: {VERSION}")
    try:
        return from_dict(ScoreRecord, values, str(path), strict=True)
    except ConfigError as error:
        raise ResultError(str(error)) from error


def of_benchmark(records: Iterable[ScoreRecord], name: str = "") -> tuple[str, list[ScoreRecord]]:
    """Select results that compare with each other.

    Args:
        records: results of any benchmarks.
        name: of the benchmark; by default SUPERB if there is a result of it, or the only one that there is.

    Returns:
        The name of the benchmark and its records; an empty list if there are no records.

    Raises:
        ResultError: none is of that benchmark, or there are several and none is named.
    """
    groups: dict[str, list[ScoreRecord]] = {}
    for record in records:
        groups.setdefault(record.comparable_with, []).append(record)
    if name:
        matching = [group for group in groups if group.lower() == name.lower()]
        if not matching:
            raise ResultError(f"no results of benchmark {name!r}; available: {', '.join(groups) or 'none'}")
        return matching[0], groups[matching[0]]
    if SUPERB in groups or not groups:
        return SUPERB, groups.get(SUPERB, [])
    if len(groups) > 1:
        raise ResultError(f"results of {', '.join(groups)} do not compare; choose one with --benchmark")
    return next(iter(groups.items()))


def collect(folders: list[Path]) -> list[ScoreRecord]:
    """Read all records below some folders, in a fixed order.

    A record beside a ``failed.json`` gets a caution: the last run, on other data or with other settings, did
    not come to this result.

    Raises:
        ResultError: a folder is missing or holds none, or a record cannot be used.
    """
    paths: dict[Path, None] = {}
    for folder in folders:
        files = sorted(folder.rglob(FILE)) if folder.is_dir() else []
        if not files:
            raise ResultError(f"{folder}: holds no {FILE} of a finished task")
        paths.update(dict.fromkeys(path.resolve() for path in files))
    return [_with_failure(read(path), path.parent) for path in paths]


def _with_failure(record: ScoreRecord, folder: Path) -> ScoreRecord:
    failures = [read_record(path) for path in sorted(folder.rglob(FAILED))]
    if not failures:
        return record
    lines = str(failures[0].get("error") or "unknown").strip().splitlines()
    return replace(record, caution=f"its last run failed ({lines[0]}); repeat it or remove {folder}")
