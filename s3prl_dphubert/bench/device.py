"""Benchmark of inference and training on a GPU, beside the published implementation and transformers.

``s3prl-dphubert bench --device cuda --out DIR`` measures models with random weights, since speed does not
depend on the weights. What matters most comes first; what the time does not suffice for is named.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..errors import ConfigError, RunError
from ..model import ModelConfig
from ..model.cost import macs
from ..model.speech_model import AUTOCAST
from ..utils import markdown
from ..utils.files import write_text
from .device_calls import (
    Call,
    own_inference,
    own_update,
    published_inference,
    published_update,
    transformers_inference,
    transformers_update,
)
from .machine import machine, versions
from .model_shapes import SHAPES, TITLES
from .reference_update import is_clone
from .workload import BATCHES, Workload

WARM_UP = 3  # calls before the first that is timed
UPDATE = Workload("10 × 15.6 s", (15.6,) * 10)  # a micro-batch of the published recipe
INFERENCE = tuple(BATCHES[name] for name in ("8x10", "mixed", "1x4"))


@dataclass(frozen=True)
class DeviceCase:
    """Something to time with one batch.

    Args:
        kind: ``inference`` or ``update``.
        subject: name of the implementation.
        shape: name of the model's shape.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        workload: the batch.
        macs: multiply-accumulates of a call.
        make: returns the function to time, for a device.
    """

    kind: str
    subject: str
    shape: str
    precision: str
    workload: Workload
    macs: int
    make: Callable[[torch.device], Call]


@dataclass(frozen=True)
class DeviceRow:
    """Measurement of a case.

    Args:
        kind: as in :class:`DeviceCase`; likewise the next four.
        subject: implementation.
        shape: shape of the model.
        precision: of its products.
        workload: name of the batch.
        audio_seconds_per_second: seconds of audio, without padding, over the median time of a call.
        milliseconds: of every timed call.
        peak_bytes: largest memory allocated on the device during the calls, weights included; 0 on the CPU.
        share: of the rate of plain matrix products in that precision.
    """

    kind: str
    subject: str
    shape: str
    precision: str
    workload: str
    audio_seconds_per_second: float
    milliseconds: tuple[float, ...]
    peak_bytes: int
    share: float


@dataclass(frozen=True)
class DeviceBenchmark:
    """Configuration of a benchmark on one device.

    Args:
        out: folder of ``device.json`` and ``device.md``.
        device: ``cuda``, ``cuda:N``, or ``cpu`` to try it out.
        reference: clone of the published repository, to be run too.
        limit: seconds after which no further case is begun.
        repeats: timed calls of each case.
        precisions: of matrix products and convolutions.
        shapes: name -> configuration of the models; the first is the teacher in updates.
        workloads: batches of inference.
        update: batch of an update.
        matrix: rows and columns of the matrices whose product gives the device's rate.

    Raises:
        ConfigError: fields are invalid; the message lists all of them.
    """

    out: Path
    device: str = "cuda"
    reference: Path | None = None
    limit: float = 240.0
    repeats: int = 5
    precisions: Sequence[str] = ("bf16", "fp16", "fp32")
    shapes: Mapping[str, ModelConfig] = field(default_factory=lambda: SHAPES)
    workloads: Sequence[Workload] = INFERENCE
    update: Workload = UPDATE
    matrix: int = 8192

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)}, allowed: more than 0"
            for name in ("limit", "repeats", "matrix")
            if not getattr(self, name) > 0
        ]
        if self.reference is not None and not is_clone(self.reference):
            faults.append(f"reference is {self.reference}, allowed: a clone of pyf98/DPHuBERT")
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            faults.append(f"device is {self.device!r}, and torch sees no GPU here")
        ConfigError.raise_for("bench", faults)

    def cases(self) -> Iterator[DeviceCase]:
        """Yield what is to be timed, the most important first: updates, then the shapes in turn."""
        name, teacher = next(iter(self.shapes.items()))
        work = 4 * self._macs(teacher, self.update)  # forward twice, and a backward pass that costs two more
        for precision in self.precisions:
            setting = (teacher, self.update, precision)
            updates: dict[str, Callable[[torch.device], Call]] = {
                "s3prl-dphubert": partial(own_update, *setting),
                "transformers": partial(transformers_update, *setting),
            }
            if self.reference is not None:
                updates["published code"] = partial(published_update, self.reference.absolute(), *setting)
            if precision == self.precisions[0]:
                updates["s3prl-dphubert, compiled"] = partial(own_update, *setting, compiled=True)
            for subject, make in updates.items():
                yield DeviceCase("update", subject, name, precision, self.update, work, make)
            yield from self._inference(precision)

    def _inference(self, precision: str) -> Iterator[DeviceCase]:
        for workload in self.workloads:
            for name, config in self.shapes.items():
                setting = (config, workload, precision)
                runs: dict[str, Callable[[torch.device], Call]] = {
                    "s3prl-dphubert": partial(own_inference, *setting)
                }
                if self.reference is not None and name != "distilhubert":
                    runs["published code"] = partial(published_inference, self.reference.absolute(), *setting)
                if config.is_dense:
                    runs["transformers"] = partial(transformers_inference, *setting)
                work = self._macs(config, workload)
                for subject, make in runs.items():
                    yield DeviceCase("inference", subject, name, precision, workload, work, make)

    def _macs(self, config: ModelConfig, workload: Workload) -> int:
        return macs(config, [max(workload.samples)] * len(workload.samples))  # padding is computed, too


def measure(benchmark: DeviceBenchmark) -> dict[str, Any]:
    """Time the cases until the time is over.

    Returns:
        ``rows`` (:class:`DeviceRow` as dictionaries), ``rates`` of matrix products in TFLOP/s by precision,
        and the names of cases that are ``missing``, with the reason.
    """
    device, began = torch.device(benchmark.device), time.monotonic()
    rates = {p: matrix_rate(device, p, benchmark.matrix) for p in benchmark.precisions}
    rows: list[DeviceRow] = []
    missing: dict[str, str] = {}
    for case in tqdm(list(benchmark.cases()), desc=f"bench on {device}", unit="case"):
        label = ", ".join((case.kind, case.subject, case.shape, case.precision, case.workload.name))
        if time.monotonic() - began > benchmark.limit:
            missing[label] = f"not begun within {benchmark.limit:g} s"
            continue
        try:
            rows.append(_run(case, device, benchmark.repeats, rates[case.precision]))
        except (RuntimeError, ImportError, TypeError) as error:  # of other libraries, or out of memory
            missing[label] = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
    return {"rows": [asdict(row) for row in rows], "rates": rates, "missing": missing}


def matrix_rate(device: torch.device, precision: str, size: int) -> float:
    """Return the rate of matrix products in TFLOP/s, an upper bound of what a model reaches."""
    dtype = AUTOCAST.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = _times(lambda: a @ b, device, 5)
    return 2 * size**3 / statistics.median(times) / 1e12


def _run(case: DeviceCase, device: torch.device, repeats: int, rate: float) -> DeviceRow:
    on_gpu = device.type == "cuda"
    call = case.make(device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    times = _times(call, device, repeats)
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else 0
    median = statistics.median(times)
    return DeviceRow(
        case.kind,
        case.subject,
        case.shape,
        case.precision,
        case.workload.name,
        sum(case.workload.samples) / SAMPLE_RATE / median,
        tuple(1000 * seconds for seconds in times),
        peak,
        2 * case.macs / median / 1e12 / rate,
    )


def _times(call: Call, device: torch.device, repeats: int) -> list[float]:
    """Return the seconds of calls from their start to the end of what they started."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for turn in range(-WARM_UP, repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        if turn >= 0:
            times.append(time.perf_counter() - start)
    return times


def page(results: dict[str, Any]) -> str:
    """Return the results as a page in Markdown."""
    parts = [f"# Speed on {results['device']}\n"]
    rates = ", ".join(f"{precision} {rate:.0f}" for precision, rate in results["rates"].items())
    parts.append(
        f"Matrix products reach, in TFLOP/s: {rates}. Shares are of these. In fp32, convolutions on a GPU "
        "round to TensorFloat-32, so that a share may exceed 100 %.\n"
    )
    head = ["", "model", "precision", "batch", "audio-s/s", "ms", "peak GB", "share of peak"]
    for kind, title in (("update", "An update of stage 1"), ("inference", "Inference")):
        lines = [
            [
                row["subject"],
                TITLES.get(row["shape"], row["shape"]),
                row["precision"],
                row["workload"],
                f"{row['audio_seconds_per_second']:,.0f}",
                f"{statistics.median(row['milliseconds']):.1f}",
                f"{row['peak_bytes'] / 1e9:.2f}",
                f"{100 * row['share']:.0f} %",
            ]
            for row in results["rows"]
            if row["kind"] == kind
        ]
        if lines:
            parts.append(f"## {title}\n\n{markdown.table(head, lines)}\n")
    if results["missing"]:
        missing = (f"- {name}: {reason}" for name, reason in results["missing"].items())
        parts.append("## Not measured\n\n" + "\n".join(missing) + "\n")
    facts = results["machine"] | results["versions"]
    parts.append(markdown.table(["", ""], ([name, str(value)] for name, value in facts.items())) + "\n")
    return "\n".join(parts)


def write(benchmark: DeviceBenchmark) -> list[Path]:
    """Measure, and write ``device.json`` and ``device.md`` into the folder.

    Raises:
        RunError: the files exist already.
    """
    paths = [benchmark.out / f"device.{suffix}" for suffix in ("json", "md")]
    for path in paths:
        if path.exists():
            raise RunError(f"{path}: exists already; choose another --out or remove it first")
    results = measure(benchmark)
    device = torch.device(benchmark.device)
    results["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    results["machine"], results["versions"] = machine(), versions()
    with suppress(FileExistsError):
        benchmark.out.mkdir(parents=True)
    for path, content in zip(paths, (json.dumps(results, indent=1) + "\n", page(results)), strict=True):
        write_text(path, content)
    return paths
