"""How far an exported file is from its model, and how fast it is."""

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
from .metadata import Info
from .runtime import Runtime
from .sensitivity import relative_errors

SECONDS = 10  # of the utterance that is timed
TURNS = 5  # timed runs of each, after one to warm up
REPORTS = (".report.json", ".report.md")  # added to the name of the file they are about
Run = Callable[[Tensor], object]


@dataclass(frozen=True)
class Report:
    """What was measured on speech that calibration has not heard.

    Args:
        info: the file's metadata.
        errors: relative error (mean magnitude of the error over mean magnitude) by hidden state.
        utterances: how many were checked.
        speed: seconds of compute per second of audio, batch 1: the file, the same format in float32,
            and the model in torch.
        threads: that they were timed with.
        bytes: the file's size.
        alone: the mean relative error that each place's product causes in 8 bits, if only it has them.
    """

    info: Info
    errors: dict[int, float]
    utterances: int
    speed: dict[str, float]
    threads: int
    bytes: int
    alone: dict[str, float]

    @property
    def mean_error(self) -> float:
        """Mean of the relative errors of all hidden states."""
        return statistics.fmean(self.errors.values())

    def to_json(self) -> str:
        """All of it."""
        values = asdict(self) | {"mean_error": self.mean_error, "ratios": self.ratios}
        return json.dumps(values, indent=2) + "\n"

    @property
    def ratios(self) -> dict[str, float]:
        """The file's time over that of others."""
        own = self.speed["file"]
        return {name: own / took for name, took in self.speed.items() if name != "file"}

    def to_markdown(self) -> str:
        """The same to read."""
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
        for name, took in self.speed.items():
            lines.append(f"| {name} | {took:.4f} | {ratios.get(name, 1.0):.2f} |")
        if self.alone:
            lines += ["", "## Products in 8 bits", "", "| place | error alone | 8 bits |", "|---|---|---|"]
            for place, error in self.alone.items():
                lines.append(f"| {place} | {error:.2%} | {'yes' if place in info.int8 else 'no'} |")
        return "\n".join(lines) + "\n"

    def write(self, file: Path) -> None:
        """Write both :data:`REPORTS` beside a file."""
        texts = self.to_json(), f"# {file.name}\n\n{self.to_markdown()}"
        for suffix, text in zip(REPORTS, texts, strict=True):
            file.with_name(file.name + suffix).write_text(text, encoding="utf8")


@torch.inference_mode()
def errors(runtime: Runtime, model: SpeechModel, speech: Sequence[Tensor]) -> dict[int, float]:
    """Relative error of each hidden state, over all frames of all utterances (1, T).

    Raises:
        ExportError: the file returns something that is not finite.
    """
    layers = runtime.info.layers
    found, exact = [], []
    for waveform in speech:
        hidden, _ = model.extract_features(waveform, num_layers=max(layers))
        exact.append([hidden[layer].numpy() for layer in layers])
        found.append([state.numpy() for state in runtime.extract_features(waveform)[0]])
    if not all(np.isfinite(state).all() for states in found for state in states):
        raise ExportError("the exported file returns non-finite hidden states; keep more in float32")
    return dict(zip(layers, relative_errors(found, exact).tolist(), strict=True))


@torch.inference_mode()
def speed(runs: dict[str, Run], speech: Sequence[Tensor]) -> dict[str, float]:
    """Seconds of compute per second of audio, the median of runs that take turns."""
    samples = SECONDS * SAMPLE_RATE
    waveform = torch.cat(list(speech), 1)
    waveform = waveform.repeat(1, -(-samples // waveform.shape[1]))[:, :samples]
    took: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run(waveform)
            took[name].append((time.perf_counter() - began) / SECONDS)
    return {name: statistics.median(times[1:]) for name, times in took.items()}
