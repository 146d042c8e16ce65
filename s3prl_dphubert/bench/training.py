"""Benchmark of training: the time of an update of stage 1, compared with the published implementation.

``s3prl-dphubert bench --training --out DIR --reference CLONE`` uses HuBERT Base with random weights and
batches of 4 x 4 s. Each contestant has its own process, with its own memory and allocator settings; they
take turns, so that all face the same noise. Ratios are medians over pairs from the same turn. The gates are
in one of two states: at the start of stage 1, or at its target, where the units of the published result are
open.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..errors import ConfigError, RunError
from ..model import ModelConfig, SpeechModel
from ..pruning.gates import gate_sizes
from ..utils import markdown
from ..utils.files import write_text
from ..utils.malloc import keep_pages
from ..utils.stopwatch import Stopwatch
from .machine import machine, versions
from .model_shapes import CHANNELS, HEADS, UNITS
from .own_update import OwnUpdate
from .reference_update import PublishedUpdate, is_clone

PARTS = ("teacher", "forward", "backward", "optimizer")
STATES = ("start", "target")
PUBLISHED = "published, fp32"


@dataclass(frozen=True)
class Case:
    """Configuration of a benchmark.

    Args:
        reference: clone of the published repository; without it, only this package is measured.
        batch: number of utterances B.
        seconds: length of each utterance.
        threads: threads of each contestant; all cores by default.
        repeats: turns after a first one to warm up.
        config: shape of teacher and student.

    Raises:
        ConfigError: fields are invalid; the message lists all of them.
    """

    reference: Path | None = None
    batch: int = 4
    seconds: float = 4.0
    threads: int = field(default_factory=torch.get_num_threads)
    repeats: int = 4
    config: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name)}, allowed: 1 or more"
            for name in ("batch", "threads", "repeats")
            if getattr(self, name) < 1
        ]
        if self.reference is not None and not is_clone(self.reference):
            faults.append(f"reference is {self.reference}, allowed: a clone of pyf98/DPHuBERT")
        if not self.seconds >= 0.1:
            faults.append(f"seconds is {self.seconds}, allowed: 0.1 or more")
        ConfigError.raise_for("bench", faults)

    def waveforms(self) -> Tensor:
        """Return a batch of noise (B, T)."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.batch, round(self.seconds * SAMPLE_RATE), generator=generator)

    def model(self) -> SpeechModel:
        """Return a model with random weights, the same in every process."""
        torch.manual_seed(0)
        return SpeechModel(self.config).eval()


def locations(config: ModelConfig, state: str) -> dict[str, dict[int, Tensor]]:
    """Return log_alpha of the gates at the start of stage 1 or at its target, by kind and layer."""
    generator = torch.Generator().manual_seed(2)
    means = {"conv": 4.6, "heads": 4.6, "ffn": 0.0}
    alphas: dict[str, dict[int, Tensor]] = {}
    for kind, mean in means.items():
        alphas[kind] = {}
        for index, size in gate_sizes(config)[kind].items():
            values = mean + 0.01 * torch.randn(size, generator=generator)
            if state == "target":
                remaining = {"conv": CHANNELS, "heads": HEADS, "ffn": UNITS}[kind]
                full = {"conv": 512, "heads": 12, "ffn": 3072}[kind]
                opened = size * remaining[index % len(remaining)] / full
                order = torch.rand(size, generator=generator).argsort()
                values = torch.where(order < opened, 4.0, -8.0)
            alphas[kind][index] = values
    return alphas


def contestants(case: Case) -> dict[str, Callable[[], Any]]:
    """Return name -> function that makes the contestant."""
    makers: dict[str, Callable[[], Any]] = {}
    if case.reference is not None:
        makers[PUBLISHED] = lambda: PublishedUpdate(Path(str(case.reference)), case.model())
    makers["ours, fp32"] = lambda: OwnUpdate(case.model())
    makers["ours, fp32, teacher bf16"] = lambda: OwnUpdate(case.model(), teacher_precision="bf16")
    makers["ours, bf16"] = lambda: OwnUpdate(case.model(), "bf16")
    return makers


def losses(case: Case) -> dict[str, float]:
    """Return the distillation losses under the same weights and masks, without dropout.

    Raises:
        ConfigError: the reference is missing.
    """
    if case.reference is None:
        raise ConfigError("bench: reference is missing, allowed: a clone of the published repository")
    torch.set_num_threads(case.threads)
    published = PublishedUpdate(case.reference, case.model(), 0.0)
    alphas, waveforms = locations(case.config, "start"), case.waveforms()
    values: dict[str, float] = {}
    for precision in ("fp32", "bf16"):
        own = OwnUpdate(case.model(), precision, 0.0)
        own.set_gates(alphas)
        with torch.no_grad():
            published.fix(own.gates.sample(torch.Generator().manual_seed(5)))
            if not values:
                values[PUBLISHED] = float(published.loss(waveforms, Stopwatch())[1])
            values[f"ours, {precision}"] = float(own.loss(waveforms, 5)[1])
    return values


def measure(case: Case, states: Sequence[str] = STATES, names: Sequence[str] = ()) -> dict[str, Any]:
    """Time the contestants in turns.

    Args:
        case: configuration of the benchmark.
        states: states of the gates.
        names: contestants to run; all :func:`contestants` by default.

    Returns:
        State -> contestant -> seconds of the parts in every turn, and peak memory in MB.

    Raises:
        ConfigError: a contestant is unknown.
        RunError: a contestant stopped.
    """
    makers = contestants(case)
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise ConfigError(f"bench: unknown contestant {', '.join(unknown)}, allowed: {', '.join(makers)}")
    spawn = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    processes = []
    for name in names or makers:
        ends[name], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=_serve, args=(case, name, theirs), daemon=True))
        processes[-1].start()
        theirs.close()  # so that the end of the process is noticed here
    total = len(states) * (case.repeats + 1) * len(ends)
    with tqdm(total=total, desc="bench", unit="update") as bar:
        updates = {state: _turns(case, state, ends, bar) for state in states}
    for end in ends.values():
        end.send(None)
    for process in processes:
        process.join(30)
    return updates


def _turns(case: Case, state: str, ends: dict[str, Connection], bar: tqdm) -> dict[str, Any]:
    """Return contestant -> measurements in one state of the gates."""
    rows: dict[str, Any] = {name: {"turns": [], "cpu": []} for name in ends}
    for turn in range(case.repeats + 1):
        for name, end in ends.items():
            try:
                end.send(state)
                wall, cpu, peak = end.recv()
            except (EOFError, OSError) as error:
                raise RunError(f"bench: {name} stopped before it was measured") from error
            if turn:
                rows[name]["turns"].append(wall)
                rows[name]["cpu"].append(cpu)
            rows[name]["peak_mb"] = peak
            bar.update()
    return rows


def _serve(case: Case, name: str, end: Connection) -> None:
    torch.set_num_threads(case.threads)
    if name != PUBLISHED:
        keep_pages()  # as the trainer does
    contestant = contestants(case)[name]()
    waveforms, before = case.waveforms(), ""
    while state := end.recv():
        if state != before:
            contestant.set_gates(locations(case.config, state))
            before = state
        watch = Stopwatch()
        contestant.update(waveforms, watch)
        times = ({**spent, "all": sum(spent.values())} for spent in (watch.wall, watch.cpu))
        end.send((*times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def table(updates: dict[str, Any]) -> str:
    """Tabulate medians in seconds, and ratios to the published update of the same turn, in Markdown."""
    parts = []
    head = ["", *PARTS, "all", "ratio (range)", "of CPU time", "peak MB"]
    for state, rows in updates.items():
        lines = [[name, *_cells(rows, name)] for name in rows]
        title = "at the start of stage 1" if state == "start" else "at the target"
        parts.append(f"Gates {title}:\n\n{markdown.table(head, lines)}\n")
    return "\n".join(parts)


def _cells(rows: dict[str, Any], name: str) -> list[str]:
    row = rows[name]
    cells = [f"{statistics.median(t[part] for t in row['turns']):.2f}" for part in (*PARTS, "all")]
    for clock in ("turns", "cpu"):
        ratios = _ratios(rows, name, clock)
        spread = f" ({ratios[0]:.2f}–{ratios[-1]:.2f})" if ratios and clock == "turns" else ""
        cells.append(f"{statistics.median(ratios):.2f}{spread}" if ratios else "")
    return [*cells, f"{row['peak_mb']:.0f}"]


def _ratios(rows: dict[str, Any], name: str, clock: str) -> list[float]:
    if PUBLISHED not in rows:
        return []
    pairs = zip(rows[name][clock], rows[PUBLISHED][clock], strict=True)
    return sorted(own["all"] / theirs["all"] for own, theirs in pairs)


def write(case: Case, folder: Path) -> list[Path]:
    """Measure, and write ``training.json`` and ``training.md`` into a folder.

    Raises:
        RunError: the files exist already, or a contestant stopped.
        ConfigError: the reference is not a clone of the published repository.
    """
    paths = [folder / f"training.{suffix}" for suffix in ("json", "md")]
    for path in paths:
        if path.exists():
            raise RunError(f"{path}: exists already; choose another --out or remove it first")
    results: dict[str, Any] = {"updates": measure(case)}
    text = table(results["updates"])
    if case.reference is not None:
        results["losses"] = losses(case)
        text += "\nDistillation loss of the same weights and masks, without dropout: "
        text += ", ".join(f"{name} {value:.6f}" for name, value in results["losses"].items()) + ".\n"
    names = ("batch", "seconds", "threads", "repeats")
    results["case"] = {name: getattr(case, name) for name in names}
    results["machine"], results["versions"] = machine(), versions()
    facts = results["case"] | results["machine"] | results["versions"]
    text += "\n" + markdown.table(["", ""], ([name, str(value)] for name, value in facts.items())) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, (json.dumps(results, indent=1) + "\n", text), strict=True):
        write_text(path, content)
    return paths
