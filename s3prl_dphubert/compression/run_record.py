"""Record of a run, read from its directory, in which any part may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoints.directory import WEIGHTS, read_config
from ..checkpoints.units_figure import UnitCounts
from ..constants import SAMPLE_RATE
from ..errors import CheckpointError, ConfigError, RunError
from ..model import ModelConfig
from ..model.cost import macs, parameters
from ..utils.config_io import is_number, read_yaml
from ..utils.readers import read_record, section
from .run_directory import CONFIG
from .run_plots import Row, read_log

MODELS = {
    "model": "finished",
    "pruned": "pruned, stage 2 is not finished",
    "student": "initialised, training is not finished",
}
"""Directories that may hold the newest model of a run, and what that says of the run."""
LONGEST, LARGEST = 3600.0, 10**15  # seconds of audio that MACs are of; a count of anything


@dataclass(frozen=True)
class Cost:
    """Cost of a model.

    Attributes:
        parameters: how many.
        macs: multiply-accumulates of the seconds that the run counts.
    """

    parameters: int
    macs: int


@dataclass(frozen=True)
class RunRecord:
    """A compression run, as far as it got and left files.

    Attributes:
        name: of its directory, of one of several sizes with that of the whole run.
        folder: its directory.
        config: values of ``config.yaml``; empty if it is missing.
        results: values of ``results.json``; empty if it is missing.
        stage1: rows of the log of stage 1.
        stage2: rows of the log of stage 2.
        state: how far it is.
        shape: of its newest model; ``None`` if it has none yet.
        model: directory of that model.
        missing: a sentence on each part that is not there, and how it comes.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    stage1: list[Row] = field(repr=False)
    stage2: list[Row] = field(repr=False)
    state: str
    shape: ModelConfig | None
    model: Path | None
    missing: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, name: str = "") -> RunRecord:
        """Read the directory of a run of one size.

        Raises:
            RunError: there is no such directory, or nothing of a run in it.
        """
        missing: list[str] = []
        config, results = _config(folder, missing), read_record(folder / "results.json")
        stage1, stage2 = read_log(folder / "stage1"), read_log(folder / "stage2")
        state, shape, model = _newest_model(folder, missing)
        if not (config or results or stage1 or stage2 or shape):
            raise RunError(f"{folder}: holds no run of compress, allowed: the folder after --out")
        if not results:
            missing.append("results.json is missing: no losses after the stages, and no cost of the teacher")
        elif not isinstance(results.get("teacher"), dict):
            missing.append("results.json has no cost of the teacher, which is written when the run finishes")
        for stage, rows in (("stage1", stage1), ("stage2", stage2)):
            if not rows and config.get(stage, {}) is not None:
                missing.append(f"{stage}/log.jsonl is missing or empty: no curves of this stage")
        name = name or folder.resolve().name
        return cls(
            name, folder, config, results, stage1, stage2, state, shape, model, tuple(missing)
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """Seconds of audio that MACs are counted for."""
        seconds = self.results.get("macs_seconds")
        return float(seconds) if is_number(seconds) and 0 < seconds <= LONGEST else 10.0

    @property
    def teacher(self) -> str:
        """Name or path of the teacher; empty if it is not known."""
        return str(self.config.get("teacher", ""))

    @property
    def cost(self) -> Cost | None:
        """Cost of the newest model."""
        return None if self.shape is None else cost_of(self.shape, self.seconds)

    @property
    def teacher_cost(self) -> Cost | None:
        """Cost of the teacher, which a finished run has recorded."""
        counts = section(self.results, "teacher")
        values = [counts.get(name) for name in ("parameters", "macs")]
        numbers = [value for value in values if isinstance(value, int) and 0 < value <= LARGEST]
        return Cost(*numbers) if len(numbers) == len(values) else None

    @property
    def units(self) -> UnitCounts | None:
        """Units of the newest model."""
        return None if self.shape is None else UnitCounts.of(self.shape)

    @property
    def teacher_units(self) -> UnitCounts | None:
        """Units of the teacher, which a finished run has recorded."""
        teacher = section(self.results, "teacher")
        try:
            heads = tuple(None if ids is None else len(ids) for ids in teacher["heads"])
            conv, ffn = (tuple(int(width or 0) for width in teacher[name]) for name in ("conv", "ffn"))
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        if not (conv and ffn and heads) or not all(0 <= width <= LARGEST for width in (*conv, *ffn)):
            return None
        return UnitCounts(conv, heads, ffn, max(count or 0 for count in heads))

    @property
    def losses(self) -> dict[str, float]:
        """Validation loss after each step of the run that recorded one, by the names of ``results.json``."""
        valid = section(self.results, "valid")
        losses = {name: each.get("loss") for name, each in valid.items() if isinstance(each, dict)}
        return {
            name: float(loss) for name, loss in losses.items() if is_number(loss) and abs(loss) <= LARGEST
        }

    @property
    def environments(self) -> dict[str, dict[str, Any]]:
        """Versions, hardware and processes of each stage."""
        stages = section(self.results, "environment")
        return {name: values for name, values in stages.items() if isinstance(values, dict)}

    @property
    def weights_bytes(self) -> int | None:
        """Size of the file of weights."""
        path = self.model and self.model / WEIGHTS
        return path.stat().st_size if path and path.is_file() else None


def read_runs(folder: Path) -> list[RunRecord]:
    """Read the directory of a run; of one with several sizes, each size that has begun.

    Raises:
        RunError: there is no such directory, or nothing of a run in it.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder, allowed: the folder after --out of compress")
    sizes = _config(folder, []).get("sizes") or ()
    parts = [folder / str(size) for size in sizes if isinstance(size, int | float | str)]
    begun = [part for part in parts if (part / CONFIG).is_file()]
    if begun:
        return [RunRecord.read(part, f"{folder.resolve().name}/{part.name}") for part in begun]
    return [RunRecord.read(folder)]


def cost_of(shape: ModelConfig, seconds: float) -> Cost:
    """Return the cost of a model, with the MACs of an utterance of some seconds."""
    return Cost(parameters(shape), macs(shape, round(seconds * SAMPLE_RATE)))


def _config(folder: Path, missing: list[str]) -> dict[str, Any]:
    try:
        return read_yaml(folder / CONFIG)
    except ConfigError as error:
        missing.append(f"no configuration: {error}")
        return {}


def _newest_model(folder: Path, missing: list[str]) -> tuple[str, ModelConfig | None, Path | None]:
    before = len(missing)
    for name, state in MODELS.items():
        if (folder / name).is_dir():
            try:
                return state, read_config(folder / name), folder / name
            except CheckpointError as error:
                missing.append(f"the units of the model cannot be shown: {error}")
    if len(missing) == before:
        missing.append("no model yet: stage 1 is not finished")
    return "not finished", None, None
