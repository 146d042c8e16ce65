"""Measured times: of runs and teachers on this machine, and of exported files as their reports have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch

from ..checkpoints.load import load_model
from ..compression.run_record import LARGEST, RunRecord
from ..errors import DataError, DPHubertError
from ..export.report import REPORTS
from ..model import SpeechModel
from ..model.profiler import real_time_factors
from ..utils.config_io import is_number
from ..utils.environment import processor
from ..utils.readers import read_json

SECONDS = 10.0


@dataclass(frozen=True)
class MeasuredSpeed:
    """Times of models that took turns.

    Attributes:
        factors: teacher, or directory of a run, -> seconds of compute per second of audio.
        conditions: what was computed, and where.
        faults: one line on each model that could not be loaded.
    """

    factors: dict[str, float]
    conditions: str
    faults: tuple[str, ...]


@dataclass(frozen=True)
class ExportedFile:
    """An exported file that lies in the directory of a run, according to its report.

    Attributes:
        name: of the file.
        precision: of its products.
        bytes: its size.
        factor: seconds of compute per second of audio.
        ratio: that time over the model's in torch.
        error: mean relative error of the hidden states.
    """

    name: str
    precision: str
    bytes: int
    factor: float
    ratio: float | None
    error: float


def measure(runs: Sequence[RunRecord], repeats: int = 5) -> MeasuredSpeed:
    """Time the models of runs and their teachers in turns, with one utterance of 10 s on the CPU.

    Args:
        runs: those without a model yet are left out.
        repeats: runs of each model, of which the fastest counts.
    """
    models: dict[str, SpeechModel] = {}
    faults = []
    sources = dict.fromkeys(run.teacher for run in runs if run.teacher and run.model)
    sources |= dict.fromkeys(str(run.model) for run in runs if run.model)
    for source in sources:
        try:
            models[source] = load_model(source)
        except DPHubertError as error:
            faults.append(f"{source} was not timed: {error}")
    factors = real_time_factors(models, SECONDS, repeats) if models else {}
    threads = torch.get_num_threads()
    conditions = (
        f"1 × {SECONDS:g} s of audio in float32, {threads} thread{'s' if threads > 1 else ''} on "
        f"{processor()}, torch {torch.__version__}; the fastest of {repeats} runs that took turns."
    )
    return MeasuredSpeed(factors, conditions, tuple(faults))


def exported_files(run: RunRecord) -> list[ExportedFile]:
    """Return the exported files in the directory of a run, as far as their reports can be read."""
    folders = [run.folder, *([run.model] if run.model else [])]
    files = []
    for path in sorted(path for folder in folders for path in folder.glob(f"*{REPORTS[0]}")):
        try:
            values = read_json(path, DataError)
        except DataError:
            continue
        info, speed = values.get("info"), values.get("speed")
        if not isinstance(info, dict) or not isinstance(speed, dict):
            continue
        size, factor, error = values.get("bytes"), speed.get("file"), values.get("mean_error")
        if _is_positive(size) and _is_positive(factor) and is_number(error):
            others = [value for name, value in speed.items() if "torch" in name and _is_positive(value)]
            ratio = factor / others[0] if others else None
            name, precision = str(values.get("file", path.name)), str(info.get("precision", ""))
            files.append(ExportedFile(name, precision, int(size), factor, ratio, error))
    return files


def _is_positive(value: object) -> TypeGuard[float]:
    return is_number(value) and 0 < value < LARGEST
