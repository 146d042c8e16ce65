"""Benchmark of inference: each subject in its own process, in turns, so that all face the same noise."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..checkpoints.load import load_model
from ..errors import ConfigError
from ..model import ModelConfig
from ..utils.hashing import sha256_tensors
from .machine import machine, versions
from .model_shapes import SHAPES, checkpoint
from .other_libraries import S3prlSubject, TransformersSubject
from .reference_update import is_clone
from .subjects import (
    ExportedSubject,
    FoldedSubject,
    MatrixProducts,
    PublishedSubject,
    Subject,
    UnfoldedSubject,
)
from .turn_log import TurnLog
from .worker import Worker
from .workload import FULL, QUICK, Workload

WARM_UP = 2  # calls of each subject before its first turn with a workload


@dataclass(frozen=True)
class Benchmark:
    """Configuration of a benchmark.

    Args:
        out: folder of the results.
        reference: clone of the published repository, to be run too.
        transformers: run HuBERT Base of transformers too.
        s3prl: run HuBERT Base and DistilHuBERT of s3prl too.
        checkpoints: models of this package to run too, each under its own name.
        exported: files written by ``export`` to run too.
        threads: threads of each subject; all cores by default.
        turns: runs of each subject with each workload.
        quick: run fewer turns and short batches.
        shapes: name -> configuration of the models with random weights.
        precisions: of folded models.
        workloads: batches; :data:`FULL` by default, or :data:`QUICK`.

    Raises:
        ConfigError: fields are invalid; the message lists all of them.
    """

    out: Path
    reference: Path | None = None
    transformers: bool = False
    s3prl: bool = False
    checkpoints: tuple[Path, ...] = ()
    exported: tuple[Path, ...] = ()
    threads: int = field(default_factory=torch.get_num_threads)
    turns: int | None = None
    quick: bool = False
    shapes: Mapping[str, ModelConfig] = field(default_factory=lambda: SHAPES)
    precisions: Sequence[str] = ("fp32", "bf16")
    workloads: Sequence[Workload] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", self.turns if self.turns is not None else 3 if self.quick else 10)
        object.__setattr__(self, "workloads", tuple(self.workloads or (QUICK if self.quick else FULL)))
        ConfigError.raise_for("bench", self._faults())

    def _faults(self) -> Iterator[str]:
        for name, value in (("threads", self.threads), ("turns", self.turns)):
            if value is None or value < 1:
                yield f"{name} is {value}, allowed: 1 or more"
        if self.reference is not None and not is_clone(self.reference):
            yield f"reference is {self.reference}, allowed: a clone of pyf98/DPHuBERT"
        for name, shapes in (("transformers", {"base"}), ("s3prl", {"base", "distilhubert"})):
            if getattr(self, name) and not shapes & self.shapes.keys():
                yield f"{name} given without {' or '.join(sorted(shapes))} in shapes, which it has models of"
        for path in self.checkpoints:
            if not path.exists():
                yield f"checkpoints is {path}, allowed: a checkpoint directory or released .pth"
        names = [*self.shapes, *(path.stem for path in self.checkpoints)]
        if len(set(names)) < len(names):
            yield f"checkpoints have the names {', '.join(names)}, allowed: each once"
        for path in self.exported:
            if not path.is_file():
                yield f"exported is {path}, allowed: a file that export wrote"

    @property
    def models(self) -> Path:
        """Folder of the models with random weights."""
        return self.out / "models"

    def prepare(self) -> list[Path]:
        """Write the missing checkpoints of the shapes; returns all of them."""
        return [checkpoint(self.models, shape, config) for shape, config in self.shapes.items()]

    def subjects(self) -> list[Subject]:
        """Return all subjects, in the order of their turns."""
        subjects: list[Subject] = [MatrixProducts("", None, precision) for precision in ("fp32", "bf16")]
        for shape, config in self.shapes.items():
            subjects += [FoldedSubject(shape, config, precision) for precision in self.precisions]
            subjects.append(UnfoldedSubject(shape, config))
            if self.reference is not None and shape != "distilhubert":
                subjects.append(PublishedSubject(shape, config, clone=self.reference.absolute()))
        for path in self.checkpoints:
            config = load_model(path).config
            subjects += [FoldedSubject(path.stem, config, p, path.absolute()) for p in self.precisions]
        base = self.shapes.get("base")
        if self.transformers and base is not None:
            subjects.append(TransformersSubject("base", base))
        if self.s3prl:
            subjects += [
                S3prlSubject(s, self.shapes[s]) for s in ("base", "distilhubert") if s in self.shapes
            ]
        return subjects + self._exported()

    def _exported(self) -> list[Subject]:
        if not self.exported:
            return []
        hashes = {path.name: sha256_tensors(load_model(path).state_dict()) for path in self.prepare()}
        return [ExportedSubject.read(path, hashes) for path in self.exported]


def measure(benchmark: Benchmark) -> TurnLog:
    """Run the measurements that are missing, and log each as soon as it is made.

    Raises:
        DPHubertError: a subject failed, or the folder holds results of another setting.
    """
    subjects, turns = benchmark.subjects(), benchmark.turns or 0
    setting = {
        "subjects": [subject.name for subject in subjects],
        "workloads": [asdict(workload) for workload in benchmark.workloads],
        "threads": benchmark.threads,
        "machine": machine(),
        "versions": versions(),
    }
    log = TurnLog(benchmark.out / "turns.jsonl", setting)
    missing = {w.name: turns - len(log.select("turn", workload=w.name)) for w in benchmark.workloads}
    calls = [count + WARM_UP for count in missing.values() if count > 0]
    if calls:
        shortest = min(benchmark.workloads, key=lambda workload: sum(workload.seconds))
        with (
            tqdm(total=(sum(calls) + 2) * len(subjects), desc="bench", unit="run") as bar,
            _workers(benchmark, subjects) as workers,
        ):
            _measure_starts(workers, shortest, log, bar)
            for workload in benchmark.workloads:
                _measure_turns(workers, workload, missing[workload.name], log, bar)
    _measure_peaks(benchmark, subjects, log)
    return log


@contextmanager
def _workers(benchmark: Benchmark, subjects: Sequence[Subject]) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    try:
        for subject in subjects:
            subject.prepare(benchmark.models)
            workers.append(Worker(subject, benchmark.models, benchmark.threads))
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def _measure_starts(workers: Sequence[Worker], workload: Workload, log: TurnLog, bar: tqdm) -> None:
    """Load all subjects, and compare the hidden states of those that run the same weights.

    Only the first utterance is compared. It is the longest; implementations differ in the frames behind the
    ends of shorter ones.
    """
    exact: dict[str, np.ndarray] = {}
    for worker in workers:
        start, subject = worker.start(workload), worker.subject
        entry = {"kind": "start", "subject": subject.name, **asdict(start)}
        if isinstance(subject, UnfoldedSubject):
            exact[subject.shape] = worker.hidden(workload)[0]
        log.add(entry)
        bar.update()
    for worker in workers:
        subject = worker.subject
        if subject.own_weights and subject.shape in exact:
            expected = exact[subject.shape]
            error = np.linalg.norm(worker.hidden(workload)[0] - expected) / np.linalg.norm(expected)
            log.add({"kind": "error", "subject": subject.name, "error": float(error)})
        bar.update()


def _measure_turns(
    workers: Sequence[Worker], workload: Workload, count: int, log: TurnLog, bar: tqdm
) -> None:
    for turn in range(-WARM_UP if count > 0 else 0, count):
        times = {}
        for worker in workers:
            times[worker.subject.name] = worker.time(workload)
            bar.update()
        if turn >= 0:
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
            log.add({"kind": "turn", "workload": workload.name, "seconds": times, "load": load})
    for worker in workers:
        worker.rest()


def _measure_peaks(benchmark: Benchmark, subjects: Sequence[Subject], log: TurnLog) -> None:
    """Measure peak memory in new processes, shortest batch first, since runtimes keep what they allocate."""
    missing = [w for w in benchmark.workloads if not log.select("peak", workload=w.name)]
    if not missing:
        return
    missing.sort(key=lambda workload: sum(workload.seconds))
    peaks: dict[str, dict[str, int]] = {workload.name: {} for workload in missing}
    for subject in tqdm(subjects, desc="memory", unit="model"):
        with _workers(benchmark, [subject]) as (worker,):
            worker.start(missing[0])
            for workload in missing:
                peaks[workload.name][subject.name] = worker.peak(workload)
                worker.rest()
    for name, sizes in peaks.items():
        log.add({"kind": "peak", "workload": name, "bytes": sizes})
