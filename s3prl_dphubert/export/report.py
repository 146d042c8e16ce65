"""Error and speed of an exported file beside its model."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..errors import ExportError
from ..model import SpeechModel
from .metadata import ExportMetadata
from .runtime import Runtime
from .sensitivity import relative_errors

SECONDS = 10  # length of the utterance that is timed
TURNS = 5  # timed runs of each, after one to warm up
REPORTS = (".report.json", ".report.md")  # appended to the name of the exported file
Run = Callable[[Tensor], object]


@dataclass(frozen=True)
class ExportReport:
    """Error and speed of an exported file, on speech that was not used for calibration.

    Args:
        info: metadata of the file.
        errors: hidden state -> relative error (mean magnitude of the error over mean magnitude).
        utterances: number of utterances checked.
        speed: seconds of compute per second of audio, batch size 1: of the file, of the same format in
            float32, and of the model in torch.
        threads: number of threads that were used.
        bytes: size of the file.
        alone: place -> mean relative error of the hidden states if only its products are in 8 bits.
    """

    info: ExportMetadata
    errors: dict[int, float]
    utterances: int
    speed: dict[str, float]
    threads: int
    bytes: int
    alone: dict[str, float]

    @property
    def mean_error(self) -> float:
        """Mean relative error of all hidden states."""
        return statistics.fmean(self.errors.values())

    def to_json(self) -> str:
        """Return the report as JSON."""
        values = asdict(self) | {"mean_error": self.mean_error, "ratios": self.ratios}
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
        lines += ["", "## Relative error of the hidden states", ""]
        lines += [f"On {self.utterances} utterances, against the model in float32 in torch.", ""]
        lines += ["| hidden state | error |", "|---|---|"]
        lines += [f"| {layer} | {error:.3%} |" for layer, error in self.errors.items()]
        lines += [f"| mean | {self.mean_error:.3%} |", "", "## Speed", ""]
        lines += [f"1 × {SECONDS} s, {self.threads} threads, median of {TURNS} runs that took turns.", ""]
        lines += ["| | seconds per second of audio | this file's time over it |", "|---|---|---|"]
        for name, seconds in self.speed.items():
            lines.append(f"| {name} | {seconds:.4f} | {ratios.get(name, 1.0):.2f} |")
        if self.alone:
            lines += ["", "## Products in 8 bits", "", "| place | error alone | 8 bits |", "|---|---|---|"]
            for place, error in self.alone.items():
                lines.append(f"| {place} | {error:.2%} | {'yes' if place in info.int8 else 'no'} |")
        return "\n".join(lines) + "\n"

    def write(self, file: Path) -> None:
        """Write the report beside the exported file, as JSON and as Markdown."""
        texts = self.to_json(), f"# {file.name}\n\n{self.to_markdown()}"
        for suffix, text in zip(REPORTS, texts, strict=True):
            file.with_name(file.name + suffix).write_text(text, encoding="utf8")


@torch.inference_mode()
def errors(runtime: Runtime, model: SpeechModel, speech: Sequence[Tensor]) -> dict[int, float]:
    """Measure the relative error of each hidden state over all frames of utterances (1, T).

    Raises:
        ExportError: a hidden state of the file is not finite.
    """
    layers = runtime.info.layers
    actual, exact = [], []
    for waveform in speech:
        hidden, _ = model.extract_features(waveform, num_layers=max(layers))
        exact.append([hidden[layer].numpy() for layer in layers])
        actual.append([state.numpy() for state in runtime.extract_features(waveform)[0]])
    if not all(np.isfinite(state).all() for states in actual for state in states):
        raise ExportError("the exported file returns non-finite hidden states; keep more in float32")
    return dict(zip(layers, relative_errors(actual, exact).tolist(), strict=True))


@torch.inference_mode()
def speed(runs: dict[str, Run], speech: Sequence[Tensor]) -> dict[str, float]:
    """Measure seconds of compute per second of audio: the median of runs that take turns."""
    samples = SECONDS * SAMPLE_RATE
    waveform = torch.cat(list(speech), 1)
    waveform = waveform.repeat(1, -(-samples // waveform.shape[1]))[:, :samples]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run(waveform)
            times[name].append((time.perf_counter() - began) / SECONDS)
    return {name: statistics.median(turns[1:]) for name, turns in times.items()}
