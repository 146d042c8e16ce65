"""Error and speed of an exported file beside its model."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..errors import ExportError
from ..model.inference.folded import FoldedModel
from .metadata import ExportMetadata
from .runtime import WINDOW, Runtime, load_exported
from .sensitivity import relative_errors
from .speech_batches import SpeechBatch

SECONDS = 10  # length of the utterance that is timed
TURNS = 5  # timed runs of each, after one to warm up
LONG = 60  # seconds of audio that is computed in windows and as a whole
REPORTS = (".report.json", ".report.md")  # appended to the name of the exported file
Run = Callable[[Tensor, Tensor | None], object]


@dataclass(frozen=True)
class ErrorReport:
    """Relative errors of hidden states: mean magnitude of the error over mean magnitude.

    Args:
        states: hidden state -> error over all utterances that were computed alone.
        worst: kind of batch (``alone``, ``short``, ``mixed``) -> mean over the hidden states, for the
            utterance where it is largest; only valid frames count.
    """

    states: dict[int, float]
    worst: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean error of all hidden states."""
        return statistics.fmean(self.states.values())

    @property
    def largest(self) -> float:
        """Largest error of an utterance, in any batch."""
        return max(self.worst.values())


@dataclass(frozen=True)
class ExportReport:
    """Error and speed of an exported file, on speech that was not used for calibration.

    Args:
        file: name of the file.
        info: metadata of the file.
        errors: its errors.
        max_error: limit of the error of each utterance.
        window_error: relative error of what is computed in windows, against the same audio as a whole.
        utterances: number of utterances checked.
        speed: seconds of compute per second of audio, batch size 1: of the file, of the same format in
            float32, and of the model in torch.
        threads: number of threads that were used.
        bytes: size of the file.
        alone: place -> largest relative error of a batch if only its products are in 8 bits.
        candidates: format and precision -> seconds of compute per second of audio, and largest error, of all
            that were tried for ``auto``; those beyond the limit have no time.
    """

    file: str
    info: ExportMetadata
    errors: ErrorReport
    max_error: float
    window_error: float
    utterances: int
    speed: dict[str, float]
    threads: int
    bytes: int
    alone: dict[str, float]
    candidates: dict[str, tuple[float | None, float]]

    @property
    def choice(self) -> str:
        """One line on what ``auto`` chose and why; empty if there was nothing to choose."""
        times = {name: seconds for name, (seconds, _) in self.candidates.items() if seconds is not None}
        if not times:
            return ""
        form = "onnx" if self.file.endswith(".onnx") else "openvino"
        chosen = f"{form}, {self.info.precision}"
        others = ", ".join(f"{name} {seconds:.4f}" for name, seconds in times.items() if name != chosen)
        return f"auto: {chosen}, {times[chosen]:.4f} s per second of audio here; {others}"

    def to_json(self) -> str:
        """Return the report as JSON."""
        values = asdict(self) | {"mean_error": self.errors.mean, "ratios": self.ratios}
        return json.dumps(values, indent=2) + "\n"

    @property
    def ratios(self) -> dict[str, float]:
        """Time of the file over that of each other way to run the model."""
        own = self.speed["file"]
        return {name: own / seconds for name, seconds in self.speed.items() if name != "file"}

    def to_markdown(self) -> str:
        """Return the report as Markdown, without a title."""
        info, ratios = self.info, self.ratios
        versions = ", ".join(f"{name} {version}" for name, version in info.versions.items())
        facts = {
            "from": info.checkpoint,
            "weights": f"SHA-256 {info.weights}",
            "precision": info.precision,
            "stride": f"{info.config.stride} samples at 16 kHz",
            "normalises waveforms": "yes" if info.config.normalize_waveform else "no",
            "size": f"{self.bytes:,} bytes",
            "made with": versions,
        }
        lines = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in facts.items())]
        lines += ["", "## Relative error of the hidden states", "", *self._errors()]
        lines += ["", "## Speed", ""]
        lines += [f"1 × {SECONDS} s, {self.threads} threads, median of {TURNS} runs that took turns.", ""]
        lines += ["| | seconds per second of audio | this file's time over it |", "|---|---|---|"]
        for name, seconds in self.speed.items():
            lines.append(f"| {name} | {seconds:.4f} | {ratios.get(name, 1.0):.2f} |")
        if self.candidates:
            lines += ["", "## Candidates", ""]
            lines += ["| | seconds per second of audio | largest error |", "|---|---|---|"]
            for name, (time_, error) in self.candidates.items():
                lines.append(f"| {name} | {'–' if time_ is None else f'{time_:.4f}'} | {error:.3%} |")
        if self.alone:
            lines += [
                "",
                "## Products in 8 bits",
                "",
                f"All others are computed in {self.info.rest}.",
                "",
                "| place | error alone | 8 bits |",
                "|---|---|---|",
            ]
            for place, error in self.alone.items():
                lines.append(f"| {place} | {error:.2%} | {'yes' if place in info.int8 else 'no'} |")
        return "\n".join(lines) + "\n"

    def _errors(self) -> Iterator[str]:
        """Yield the lines about errors."""
        yield f"On {self.utterances} utterances, against the model in float32 in torch."
        yield ""
        yield "| hidden state | error |"
        yield "|---|---|"
        yield from (f"| {layer} | {error:.3%} |" for layer, error in self.errors.states.items())
        yield f"| mean | {self.errors.mean:.3%} |"
        yield ""
        yield f"The utterance with the largest error, of at most {self.max_error:.1%} allowed:"
        yield ""
        yield "| batches | error |"
        yield "|---|---|"
        yield from (f"| {kind} | {error:.3%} |" for kind, error in self.errors.worst.items())
        yield ""
        yield (
            f"The convolutions of audio beyond {WINDOW:g} s are computed in windows, which changes hidden "
            f"states by "
            f"{self.window_error:.5%}."
        )

    def write(self, file: Path) -> None:
        """Write the report beside the exported file, as JSON and as Markdown."""
        texts = self.to_json(), f"# {file.name}\n\n{self.to_markdown()}"
        for suffix, text in zip(REPORTS, texts, strict=True):
            file.with_name(file.name + suffix).write_text(text, encoding="utf8")


@dataclass(frozen=True)
class Reference:
    """Hidden states of a batch that a model in torch computes.

    Args:
        batch: its input.
        hidden: the hidden states that are compared.
        frames: (B,) valid frames, or ``None`` if nothing is padded.
    """

    batch: SpeechBatch
    hidden: list[Tensor]
    frames: Tensor | None


@torch.inference_mode()
def references(
    model: FoldedModel, layers: Sequence[int], batches: Mapping[str, Sequence[SpeechBatch]]
) -> dict[str, list[Reference]]:
    """Compute the hidden states of batches by kind, once for all files."""
    result: dict[str, list[Reference]] = {kind: [] for kind in batches}
    for kind, members in batches.items():
        for batch in members:
            hidden, frames = model.extract_features(batch.waveforms, batch.lengths, num_layers=max(layers))
            result[kind].append(Reference(batch, [hidden[layer] for layer in layers], frames))
    return result


def errors(runtime: Runtime, exact: Mapping[str, Sequence[Reference]]) -> ErrorReport:
    """Measure the errors of a file on batches, over the valid frames of each utterance.

    Raises:
        ExportError: a hidden state of the file is not finite.
    """
    layers = runtime.info.layers
    worst = dict.fromkeys(exact, 0.0)
    alone = np.zeros((2, len(layers)))  # sums of error and magnitude
    for kind, members in exact.items():
        for reference in members:
            batch = reference.batch
            actual = runtime.extract_features(batch.waveforms, batch.lengths)[0]
            if not all(bool(state.isfinite().all()) for state in actual):
                raise ExportError(
                    f"the file in {runtime.info.precision} returns hidden states that are not finite; "
                    "keep more in float32"
                )
            for sums in _rows(actual, reference.hidden, reference.frames):
                worst[kind] = max(worst[kind], float((sums[0] / sums[1]).mean()))
                alone += sums if kind == "alone" else 0
    return ErrorReport(dict(zip(layers, (alone[0] / alone[1]).tolist(), strict=True)), worst)


def _rows(actual: list[Tensor], exact: list[Tensor], frames: Tensor | None) -> Iterator[np.ndarray]:
    """Yield sums of magnitudes (2, states) of error and reference for each utterance of (B, F, D)."""
    ends = [exact[0].shape[1]] * len(exact[0]) if frames is None else frames.tolist()
    for row, end in enumerate(ends):
        pairs = [(a[row, :end], b[row, :end]) for a, b in zip(actual, exact, strict=True)]
        yield np.array(
            [[float((a - b).abs().sum()) for a, b in pairs], [float(b.abs().sum()) for _, b in pairs]]
        )


@torch.inference_mode()
def window_error(path: Path, threads: int, speech: Sequence[Tensor]) -> float:
    """Measure what windows change: the mean relative error of the hidden states of :data:`LONG` seconds."""
    waveform = long_utterance(speech, LONG).waveforms
    parts, whole = (
        [[state.numpy() for state in load_exported(path, threads, window).extract_features(waveform)[0]]]
        for window in (WINDOW, None)
    )
    return float(relative_errors(parts, whole).mean())


@torch.inference_mode()
def speed(runs: Mapping[str, Run], loads: Sequence[SpeechBatch]) -> dict[str, float]:
    """Measure seconds of compute per second of audio: medians of runs that take turns, over all loads."""
    audio = sum(load.seconds for load in loads)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            for load in loads:
                run(load.waveforms, load.lengths)
            times[name].append((time.perf_counter() - began) / audio)
    return {name: statistics.median(turns[1:]) for name, turns in times.items()}


def long_utterance(speech: Sequence[Tensor], seconds: int) -> SpeechBatch:
    """Join utterances (1, T), and repeat them until there are so many seconds."""
    samples, waveform = seconds * SAMPLE_RATE, torch.cat(list(speech), 1)
    return SpeechBatch(waveform.repeat(1, -(-samples // waveform.shape[1]))[:, :samples])
