"""Export of models to runtimes that need no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints.load import load_model
from ..errors import CheckpointError, ExportError
from ..model.inference.folded import fold
from ..utils.files import temporary_folder
from . import calibration_data, report
from .backends import FORMATS, RUNTIMES, needed, open_session
from .candidate import Candidate, ExportSource
from .export_config import AUTO, ExportConfig
from .report import REPORTS, ErrorReport, ExportReport
from .runtime import Runtime
from .speech_batches import SpeechBatch, check_batches

GAIN = 0.95  # share of a more precise file's time from which on a less precise one is preferred


def export_model(
    source: str | Path, out: str | Path, config: ExportConfig | None = None, overwrite: bool = False
) -> ExportReport:
    """Write a model and a report on it; either all files appear or none.

    Args:
        source: as for :func:`~s3prl_dphubert.load_model`.
        out: ``NAME.onnx``, or ``NAME.xml``, to which ``NAME.bin`` belongs; with format ``auto`` ``NAME``,
            which gets the suffix of the format that is chosen.
        config: format and precision; the defaults of :class:`.ExportConfig` otherwise.
        overwrite: replace existing files.

    Returns:
        The report, which is also written beside the file.

    Raises:
        ConfigError: ``out`` has another suffix than the format, or the model lacks a layer.
        CheckpointError: the model cannot be loaded, or a file exists already.
        DataError: a manifest or its audio cannot be read.
        ExportError: a package is missing, or no file is within ``max_error``.
    """
    config, out = config or ExportConfig(), Path(out)
    config.check_suffix(out)
    formats = _formats(config)
    outs = {form: _with_suffix(out, form) for form in formats}
    existing = [str(path) for final in outs.values() for path in targets(final) if path.exists()]
    if existing and not overwrite:
        raise CheckpointError(f"{', '.join(existing)}: exists already; choose another name or overwrite")
    model = load_model(source)
    threads = config.threads or torch.get_num_threads()
    origin = ExportSource(str(source), model, config.layers_of(model.config), threads)
    speech = calibration_data.check(config.check, model.config.min_samples)
    out.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out) as folder:
        candidates = [
            Candidate(origin, one, folder / f"{one.format}-{one.precision}" / outs[one.format].name)
            for one in config.candidates(formats)
        ]
        batches = check_batches(model.config, speech)
        exact = report.references(fold(model), origin.layers, batches)
        checked = [_checked(candidate, exact, config.max_error) for candidate in candidates]
        chosen, measured = _fastest(checked, batches, speech, config)
        measured.write(chosen.path)
        for path, final in zip(targets(chosen.path), targets(outs[chosen.config.format]), strict=True):
            os.replace(path, final)
    return measured


def targets(out: Path) -> list[Path]:
    """Return all files of an export, ``out`` itself last."""
    others = [out.with_name(out.name + suffix) for suffix in REPORTS]
    if out.suffix == FORMATS["openvino"]:
        others.append(out.with_suffix(".bin"))
    return [*others, out]


def _formats(config: ExportConfig) -> list[str]:
    """Return the configured format, or those whose runtime is installed.

    Raises:
        ExportError: a package is missing.
    """
    formats = [config.format]
    if config.format == AUTO:
        formats = [form for form, module in RUNTIMES.items() if find_spec(module)] or list(RUNTIMES)
    for form in formats:
        needed(RUNTIMES[form], form)
    needed("onnx", formats[0])
    return formats


def _with_suffix(out: Path, form: str) -> Path:
    suffix = FORMATS[form]
    return out if out.suffix == suffix else out.with_name(out.name + suffix)


@dataclass(frozen=True)
class CheckedCandidate:
    """A candidate whose errors are known.

    Args:
        candidate: the file.
        runtime: the file, loaded.
        errors: its errors.
    """

    candidate: Candidate
    runtime: Runtime
    errors: ErrorReport


def _checked(
    candidate: Candidate, exact: Mapping[str, Sequence[report.Reference]], limit: float
) -> CheckedCandidate:
    """Write a candidate with as many products in 8 bits as keep each utterance within the limit."""

    def attempt(places: int) -> CheckedCandidate:
        candidate.places = places
        runtime = candidate.write()
        return CheckedCandidate(candidate, runtime, report.errors(runtime, exact))

    most = candidate.places
    result = attempt(most)
    if result.errors.largest <= limit or not most:
        return result
    least, result = 0, attempt(0)
    while most - least > 1:
        middle = (least + most) // 2
        tried = attempt(middle)
        if tried.errors.largest <= limit:
            least, result = middle, tried
        else:
            most = middle
    return result if candidate.places == least else attempt(least)


def _fastest(
    checked: Sequence[CheckedCandidate],
    batches: Mapping[str, Sequence[SpeechBatch]],
    speech: Sequence[Tensor],
    config: ExportConfig,
) -> tuple[Candidate, ExportReport]:
    """Return the candidate that takes least time among those within the limit, and its report.

    Raises:
        ExportError: none is within the limit.
    """
    allowed = [one for one in checked if one.errors.largest <= config.max_error]
    if not allowed:
        best = min(checked, key=lambda one: one.errors.largest)
        raise ExportError(
            f"max_error is {config.max_error}, but an utterance is off by {best.errors.largest:.4f} in "
            f"{best.candidate.name}; allow that, or choose fp32"
        )
    times: dict[str, float] = {}
    chosen = allowed[0]
    if len(checked) > 1:
        runs = {one.candidate.name: one.runtime.extract_features for one in allowed}
        times = report.speed(runs, [report.long_utterance(speech, report.SECONDS), batches["mixed"][0]])
        for one in allowed[1:]:
            if times[one.candidate.name] < GAIN * times[chosen.candidate.name]:
                chosen = one
    tried = {
        one.candidate.name: (times.get(one.candidate.name), one.errors.largest)
        for one in (checked if times else [])
    }
    return chosen.candidate, _report(chosen, speech, config.max_error, tried)


def _report(
    chosen: CheckedCandidate,
    speech: Sequence[Tensor],
    limit: float,
    tried: dict[str, tuple[float | None, float]],
) -> ExportReport:
    """Measure the speed of a file beside its model, and what windows change."""
    candidate = chosen.candidate
    source, form, threads = candidate.source, candidate.config.format, candidate.source.threads
    plain = Runtime(
        open_session(source.graph(form).model().SerializeToString(), form, threads), candidate.info
    )
    runs: dict[str, report.Run] = {
        "file": chosen.runtime.extract_features,
        f"{form}, float32": plain.extract_features,
        "torch, float32": partial(source.model.extract_features, num_layers=max(source.layers)),
    }
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        speed = report.speed(runs, [report.long_utterance(speech, report.SECONDS)])
    finally:
        torch.set_num_threads(before)
    return ExportReport(
        file=candidate.path.name,
        info=candidate.info,
        errors=chosen.errors,
        max_error=limit,
        window_error=report.window_error(candidate.path, threads, speech),
        utterances=len(speech),
        speed=speed,
        threads=threads,
        bytes=candidate.bytes,
        alone=candidate.alone,
        candidates=tried,
    )
