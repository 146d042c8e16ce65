"""The training loop: accumulation over micro-batches and processes, mixed precision, clipping,
checkpoints, resume.

It knows nothing of the task. Randomness is a function of (seed, update, micro-batch of the update),
whichever process has that micro-batch, so one process that accumulates 2 equals two that
accumulate 1. Micro-batch ``i * world + rank`` of an update is that process's ``i``-th, and all
weigh the same. Process 0 alone writes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .checkpoint import read_pickle
from .config import TrainConfig
from .data.batches import Batch, BatchStream, loader
from .environment import Environment, changes, environment
from .errors import RunError
from .files import replacing
from .journal import Journal
from .model.precision import AUTOCAST
from .optimizer import ScheduledAdamW
from .processes import Processes

log = logging.getLogger(__name__)


class Task(Protocol):
    """What a trainer trains."""

    module: nn.Module
    """Owner of everything that is optimised and saved."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups; each names its peak ``base_lr`` and may ``maximize``."""

    def step(self, batch: Batch, update: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Loss of one micro-batch and named scalars."""

    def validate(self) -> dict[str, float]:
        """Named scalars of a validation, ``loss`` among them; empty without validation data."""


def seeded(seed: int, update: int, micro: int) -> torch.Generator:
    """Set torch's random numbers to those of one micro-batch; returns the generator of its gates."""
    seeds = np.random.SeedSequence((seed, update, micro)).generate_state(2)
    torch.manual_seed(int(seeds[0]))
    return torch.Generator().manual_seed(int(seeds[1]))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision ``bf16`` or ``fp16``; off for ``fp32``."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def report_skip(update: int, in_a_row: int, most: int) -> None:
    """Warn that an update was skipped.

    Raises:
        RunError: so many have been skipped one after the other.
    """
    log.warning("update %d skipped: non-finite loss or gradient", update)
    if in_a_row >= most:
        raise RunError(
            f"{in_a_row} updates in a row had a non-finite loss or gradient; lower the learning rate"
        )


class Trainer:
    """Runs a task to its last update, from scratch or from the newest checkpoint.

    Args:
        task: what to train.
        config: how.
        stream: micro-batches by global index.
        folder: for checkpoints, ``log.jsonl`` and TensorBoard events.
        seed: of everything random.
        name: shown in the progress line.
        processes: who else trains, and this process's device; this one alone on the CPU by default.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        stream: BatchStream,
        folder: Path,
        seed: int = 0,
        name: str = "train",
        processes: Processes | None = None,
    ) -> None:
        self.task, self.config, self.stream, self.folder = task, config, stream, folder
        self.seed, self.name = seed, name
        self.processes = processes or Processes()
        self.device = self.processes.device
        self.optimizer = ScheduledAdamW(task.parameter_groups(), config.warmup, config.updates)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.update, self.skipped, self.in_a_row = 0, 0, 0
        self.best: float | None = None
        if self.processes.main:
            folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Train to the end.

        Raises:
            RunError: too many updates in a row had a non-finite loss or gradient, or another
                process was lost.
        """
        self.resume()
        if self.update >= self.config.updates:
            return
        self.processes.copy(self.task.module)
        self.task.module.train()
        main, done, updates = self.processes.main, self.update, self.config.updates
        journal = Journal(self.folder, self.name, done) if main else None
        bar = tqdm(
            initial=done, total=updates, desc=self.name, unit="update", mininterval=1.0, disable=not main
        )
        try:
            for batches in self.micro_batches():
                began = time.monotonic()
                scalars = self.train_step(batches)
                if "audio_seconds" in scalars:
                    audio, took = scalars.pop("audio_seconds"), max(time.monotonic() - began, 1e-9)
                    scalars["audio_seconds_per_second"] = audio / took
                self.update += 1
                bar.update()
                bar.set_postfix(_shown(scalars), refresh=False)
                self.after_step(scalars, journal)
        finally:
            bar.close()
            if journal is not None:
                journal.close()

    def micro_batches(self) -> Iterator[list[Batch]]:
        """Yield this process's micro-batches of each remaining update."""
        config, world, rank = self.config, self.processes.world, self.processes.rank
        each = config.accumulate * world
        start, stop = self.update * each, config.updates * each
        batches = iter(loader(self.stream, start, stop, config.num_workers, stride=world, offset=rank))
        for _ in range(self.update, config.updates):
            yield [next(batches) for _ in range(config.accumulate)]

    def train_step(self, batches: list[Batch]) -> dict[str, float]:
        """One update of all processes; a non-finite loss or gradient in one skips it in all."""
        world = self.processes.world
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.schedule(self.update)
        totals: dict[str, float] = {}
        finite = True
        for place, batch in enumerate(batches):
            loss, scalars = self._forward(batch, place * world + self.processes.rank)
            finite = bool(torch.isfinite(loss.detach()))
            if not finite:
                break
            self.scaler.scale(loss / (len(batches) * world)).backward()
            for name, value in {"loss": float(loss.detach()), **scalars}.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
        result: dict[str, float] = {}
        finite = self.processes.all(finite)  # before anything else is exchanged, so that none waits for it
        if finite:
            result = self.processes.mean({**totals, "audio_seconds": _seconds(batches)})
            result["audio_seconds"] *= world
            result["gradient_norm"] = self._optimise()
            finite = math.isfinite(result["gradient_norm"])
        self._count(finite)
        return result | {"lr": self.optimizer.get_lr()[0]}

    def _forward(self, batch: Batch, micro: int) -> tuple[Tensor, dict[str, float]]:
        """Loss and scalars of the update's micro-batch of that number."""
        generator = seeded(self.seed, self.update, micro)
        with self.autocast():
            return self.task.step(batch.to(self.device), self.update, generator)

    def _optimise(self) -> float:
        """Add up the gradients of all processes and take the step; returns their norm."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.processes.add([p.grad for p in parameters if p.grad is not None])
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.clip))
        if math.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm

    def _count(self, finite: bool) -> None:
        self.in_a_row = 0 if finite else self.in_a_row + 1
        self.skipped += not finite
        if not finite:
            report_skip(self.update, self.in_a_row, self.config.max_nonfinite)

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured."""
        return autocast(self.device, self.config.precision)

    def after_step(self, scalars: dict[str, float], journal: Journal | None) -> None:
        """Log, validate and save when it is time."""
        config, last = self.config, self.update == self.config.updates
        if self.update % config.validate_every == 0 or last:
            scalars |= {f"valid_{name}": value for name, value in self.validate().items()}
        logged = self.update % config.log_every == 0 or last or "valid_loss" in scalars
        if logged and journal is not None:
            journal.write(self.update, self.skipped, scalars)
        if (self.update % config.save_every == 0 or last) and self.processes.main:
            self.save()

    def validate(self) -> dict[str, float]:
        """Run the task's validation in process 0, whose result all get, and keep the best weights."""
        scalars: dict[str, float] = {}
        if self.processes.main:
            self.task.module.eval()
            with torch.no_grad(), self.autocast():
                scalars = self.task.validate()
            self.task.module.train()
        scalars = self.processes.share(scalars)
        loss = scalars.get("loss")
        if loss is not None and math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best = loss
            if self.processes.main:
                content = {"module": self.task.module.state_dict(), "update": self.update, "loss": loss}
                _write(content, self.folder / "best.pt")
        return scalars

    def save(self) -> None:
        """Write a checkpoint and drop the oldest ones."""
        content = {
            "module": self.task.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "update": self.update,
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "best": self.best,
            "environment": self.environment(),
        }
        _write(content, self.folder / f"state-{self.update:08d}.pt")
        for old in self.states()[: -self.config.keep]:
            old.unlink()

    def states(self) -> list[Path]:
        """Checkpoints, oldest first."""
        return sorted(self.folder.glob("state-*.pt"))

    def environment(self) -> Environment:
        """What has to stay the same for a resumed run to be exact."""
        return environment(self.device, self.config.precision, self.processes.world, self.config.accumulate)

    def resume(self) -> None:
        """Load the newest checkpoint that process 0 sees, if there is one."""
        newest = self.processes.share(self.states()[-1].name if self.states() else None)
        if newest is None:
            return
        saved = read_pickle(self.folder / newest)
        self.task.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.update, self.skipped = saved["update"], saved["skipped"]
        self.in_a_row, self.best = saved["in_a_row"], saved["best"]
        if changed := changes(saved.get("environment", {}), self.environment()):
            what = "%s goes on after update %d with %s; its numbers will not be those of an undisturbed run"
            log.warning(what, self.name, self.update, changed)


def _write(content: dict[str, Any], path: Path) -> None:
    with replacing(path) as partial:
        torch.save(content, partial)


def _seconds(batches: list[Batch]) -> float:
    return sum(batch.waveforms.numel() for batch in batches) / 16_000


def _shown(scalars: dict[str, float]) -> dict[str, str]:
    shown = {"loss": f"{scalars.get('loss', math.nan):.3f}"}
    shown |= {name: f"{value:.3f}" for name, value in scalars.items() if name.startswith("sparsity")}
    if (speed := scalars.get("audio_seconds_per_second")) is not None:
        shown["audio-s/s"] = f"{speed:.0f}"
    return shown
