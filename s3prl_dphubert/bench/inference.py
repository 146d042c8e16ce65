"""How fast models infer: subjects in processes of their own, in turns, so that all meet the same noise."""

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
from .machine import machine, versions
from .model_shapes import SHAPES, checkpoint
from .other_libraries import S3prl, Transformers
from .subjects import Exported, Own, Plain, Products, Published, Subject
from .turn_log import Record
from .worker import Worker
from .workload import FULL, QUICK, Workload

WARM_UP = 2  # calls of every subject before its first turn with a workload


@dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Args:
        out: folder of the results.
        reference: clone of the published repository.
        transformers: whether to run HuBERT Base of transformers.
        s3prl: whether to run HuBERT Base and DistilHuBERT of s3prl.
        checkpoints: models of this package to run too, each under its own name.
        exported: files that ``export`` wrote.
        threads: of every subject; all cores by default.
        turns: runs of every subject with every workload.
        quick: fewer turns, short batches.
        shapes: name -> models.
        workloads: batches; by default :data:`FULL`, or :data:`QUICK`.

    Raises:
        ConfigError: naming every field that is wrong.
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
    workloads: Sequence[Workload] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", self.turns if self.turns is not None else 3 if self.quick else 10)
        object.__setattr__(self, "workloads", tuple(self.workloads or (QUICK if self.quick else FULL)))
        ConfigError.raise_for("bench", self._faults())

    def _faults(self) -> Iterator[str]:
        for name, value in (("threads", self.threads), ("turns", self.turns)):
            if value is None or value < 1:
                yield f"{name} is {value}, allowed: 1 or more"
        if self.reference is not None and not (self.reference / "wav2vec2" / "model.py").is_file():
            yield f"reference is {self.reference}, allowed: a clone of pyf98/DPHuBERT"
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
        """Folder of the models that are measured."""
        return self.out / "models"

    def prepare(self) -> list[Path]:
        """Write the checkpoints of all shapes, where they are not there."""
        return [checkpoint(self.models, shape, config) for shape, config in self.shapes.items()]

    def subjects(self) -> list[Subject]:
        """All subjects, in the order in which they take turns."""
        found: list[Subject] = [Products("", None, precision) for precision in ("fp32", "bf16")]
        for shape, config in self.shapes.items():
            found += [Own(shape, config, precision) for precision in ("fp32", "bf16")]
            found.append(Plain(shape, config))
            if self.reference is not None and shape != "distilhubert":
                found.append(Published(shape, config, clone=self.reference.absolute()))
        for path in self.checkpoints:
            config = load_model(path).config
            found += [Own(path.stem, config, p, path.absolute()) for p in ("fp32", "bf16")]
        base = self.shapes.get("base")
        if self.transformers and base is not None:
            found.append(Transformers("base", base))
        if self.s3prl:
            found += [S3prl(s, self.shapes[s]) for s in ("base", "distilhubert") if s in self.shapes]
        return found + self._exported()

    def _exported(self) -> list[Subject]:
        if not self.exported:
            return []
        from ..export.metadata import weights_hash

        hashes = {path.name: weights_hash(load_model(path)) for path in self.prepare()}
        return [Exported.read(path, hashes) for path in self.exported]


def measure(benchmark: Benchmark) -> Record:
    """Measure what has not been measured yet; every turn is kept at once.

    Raises:
        DPHubertError: a subject fails, or the folder holds results of another setting.
    """
    subjects, turns = benchmark.subjects(), benchmark.turns or 0
    setting = {
        "subjects": [subject.name for subject in subjects],
        "workloads": [asdict(workload) for workload in benchmark.workloads],
        "threads": benchmark.threads,
        "machine": machine(),
        "versions": versions(),
    }
    record = Record(benchmark.out / "turns.jsonl", setting)
    missing = {w.name: turns - len(record.of("turn", workload=w.name)) for w in benchmark.workloads}
    left = [count + WARM_UP for count in missing.values() if count > 0]
    if left:
        first = min(benchmark.workloads, key=lambda workload: sum(workload.seconds))
        with (
            tqdm(total=(sum(left) + 2) * len(subjects), desc="bench", unit="run") as bar,
            _workers(benchmark, subjects) as workers,
        ):
            _starts(workers, first, record, bar)
            for workload in benchmark.workloads:
                _turns(workers, workload, missing[workload.name], record, bar)
    _peaks(benchmark, subjects, record)
    return record


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


def _starts(workers: Sequence[Worker], workload: Workload, record: Record, bar: tqdm) -> None:
    """Load everything; compare the hidden states of what runs the same weights, of the first utterance.

    It is the longest: behind the ends of others each implementation leaves what it likes.
    """
    wanted: dict[str, np.ndarray] = {}
    for worker in workers:
        start, subject = worker.start(workload), worker.subject
        entry = {"kind": "start", "subject": subject.name, **asdict(start)}
        if isinstance(subject, Plain):
            wanted[subject.shape] = worker.hidden(workload)[0]
        record.add(entry)
        bar.update()
    for worker in workers:
        subject = worker.subject
        if subject.own_weights and subject.shape in wanted:
            exact = wanted[subject.shape]
            error = np.linalg.norm(worker.hidden(workload)[0] - exact) / np.linalg.norm(exact)
            record.add({"kind": "error", "subject": subject.name, "error": float(error)})
        bar.update()


def _turns(workers: Sequence[Worker], workload: Workload, count: int, record: Record, bar: tqdm) -> None:
    for turn in range(-WARM_UP if count > 0 else 0, count):
        times = {}
        for worker in workers:
            times[worker.subject.name] = worker.time(workload)
            bar.update()
        if turn >= 0:
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
            record.add({"kind": "turn", "workload": workload.name, "seconds": times, "load": load})
    for worker in workers:
        worker.rest()


def _peaks(benchmark: Benchmark, subjects: Sequence[Subject], record: Record) -> None:
    """Every subject alone in a new process, the shortest batch first: runtimes keep what a batch took."""
    left = [w for w in benchmark.workloads if not record.of("peak", workload=w.name)]
    if not left:
        return
    left.sort(key=lambda workload: sum(workload.seconds))
    peaks: dict[str, dict[str, int]] = {workload.name: {} for workload in left}
    for subject in tqdm(subjects, desc="memory", unit="model"):
        with _workers(benchmark, [subject]) as (worker,):
            worker.start(left[0])
            for workload in left:
                peaks[workload.name][subject.name] = worker.peak(workload)
                worker.rest()
    for name, found in peaks.items():
        record.add({"kind": "peak", "workload": name, "bytes": found})
