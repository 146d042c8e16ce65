"""``score.json``: the result of a finished task; reports are made of these files alone."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...errors import ConfigError, ResultError
from ...utils.config_io import from_dict, type_faults
from ...utils.files import write_text
from ..tasks import find
from ..tasks.spec import SuperbTask

FILE = "score.json"
VERSION = 1


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
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            faults.append(f"learning_rate is {self.learning_rate}, allowed: more than 0")
        for name in ("parameters", "macs"):
            if (getattr(self, name) or 0) < 0:
                faults.append(f"{name} is {getattr(self, name)}, allowed: 0 or more")
        try:
            datetime.datetime.fromisoformat(self.date)
        except ValueError:
            faults.append(f"date is {self.date!r}, allowed: ISO 8601, as 2026-01-31T12:00:00")
        return faults

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
    try:
        values = json.loads(path.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise ResultError(f"{path}: holds {type(values).__name__}, allowed: a mapping")
    version = values.pop("version", None)
    if version != VERSION:
        raise ResultError(f"{path}: version is {version!r}, allowed: {VERSION}")
    try:
        return from_dict(ScoreRecord, values, str(path), strict=True)
    except ConfigError as error:
        raise ResultError(str(error)) from error


def collect(folders: list[Path]) -> list[ScoreRecord]:
    """Read all records below some folders, in a fixed order.

    Raises:
        ResultError: a folder is missing or holds none, or a record cannot be used.
    """
    paths: dict[Path, None] = {}
    for folder in folders:
        files = sorted(folder.rglob(FILE)) if folder.is_dir() else []
        if not files:
            raise ResultError(f"{folder}: holds no {FILE} of a finished task")
        paths.update(dict.fromkeys(path.resolve() for path in files))
    return [read(path) for path in paths]
