"""The training loop: accumulation over micro-batches and processes, mixed precision, clipping,
checkpoints, resume.

It knows nothing of the task, and asks the device for numbers only when they are needed: on a GPU when
they are logged, so that it never waits for the host.

Randomness is a function of (seed, update, micro-batch of the update), whichever process has that
micro-batch, so one process that accumulates 2 equals two that accumulate 1. Micro-batch
``i * world + rank`` of an update is that process's ``i``-th, and all weigh the same. Process 0 alone writes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..data.batches import Batch, BatchStream, loader
from ..model.precision import autocast
from ..model.state_dict import load_weights_only
from ..utils.environment import Environment, changes, environment
from ..utils.files import replacing
from ..utils.malloc import keep_pages
from .distributed import Processes
from .metric_logger import MetricLogger
from .nonfinite import SkipCounter
from .optimizer import ScheduledAdamW
from .train_config import TrainConfig

log = logging.getLogger(__name__)
Scalars = dict[str, Any]  # name -> a number, or a 0-d tensor on the device


class Task(Protocol):
    """What a trainer trains."""

    module: nn.Module
    """Owner of everything that is optimised and saved."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups; each names its peak ``base_lr`` and may ``maximize``."""

    def step(self, batch: Batch, update: int, generator: torch.Generator) -> tuple[Tensor, Scalars]:
        """Loss of one micro-batch and named scalars without gradient."""

    def validate(self) -> dict[str, float]:
        """Named scalars of a validation, ``loss`` among them; empty without validation data."""


def seeded(seed: int, update: int, micro: int) -> torch.Generator:
    """Set torch's random numbers to those of one micro-batch; returns the generator of its gates."""
    seeds = np.random.SeedSequence((seed, update, micro)).generate_state(2)
    torch.manual_seed(int(seeds[0]))
    return torch.Generator().manual_seed(int(seeds[1]))


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
        self.update, self.skips = 0, SkipCounter(self.device)
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
        if self.device.type == "cpu":
            keep_pages()
        main, done, updates = self.processes.main, self.update, self.config.updates
        journal = MetricLogger(self.folder, self.name, done) if main else None
        bar = tqdm(
            initial=done, total=updates, desc=self.name, unit="update", mininterval=1.0, disable=not main
        )
        try:
            began, audio = time.monotonic(), 0.0
            for batches in self.micro_batches():
                scalars = self.train_step(batches)
                audio += _seconds(batches) * self.processes.world
                self.update += 1
                bar.update()
                if self.reads():
                    scalars = self.read(scalars)
                    now = time.monotonic()
                    scalars["audio_seconds_per_second"] = audio / max(now - began, 1e-9)
                    began, audio = now, 0.0
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
        ready: list[list[Batch]] = []
        for _ in range(self.update, config.updates):
            # One update ahead, so that a GPU gets its audio while it computes.
            ready.append([next(batches).start(self.device) for _ in range(config.accumulate)])
            if len(ready) > 1 or self.device.type == "cpu":
                yield ready.pop(0)
        yield from ready

    def train_step(self, batches: list[Batch]) -> Scalars:
        """One update of all processes; a non-finite loss or gradient in one skips it in all."""
        world = self.processes.world
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.schedule(self.update)
        totals: Scalars = {}
        spoilt = torch.zeros((), device=self.device)
        for place, batch in enumerate(batches):
            loss, scalars = self._forward(batch, place * world + self.processes.rank)
            self.scaler.scale(loss / (len(batches) * world)).backward()
            spoilt += loss.detach() * 0  # NaN where the loss is not finite
            for name, value in {"loss": loss.detach(), **scalars}.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
        return totals | {"gradient_norm": self._optimise(spoilt)}

    def _forward(self, batch: Batch, micro: int) -> tuple[Tensor, Scalars]:
        """Loss and scalars of the update's micro-batch of that number."""
        generator = seeded(self.seed, self.update, micro)
        with self.autocast():
            return self.task.step(batch.to(self.device), self.update, generator)

    def _optimise(self, spoilt: Tensor) -> Tensor:
        """Add up the gradients of all processes and take the step, if all is finite; returns their norm."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        gradients[0] += spoilt.to(gradients[0])  # so that all processes learn of it
        self.processes.add(gradients)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip).detach()
        bad = ~torch.isfinite(norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # which sees for itself
        else:
            self.optimizer.step_unless(bad)
        self.scaler.update()
        self.skips.count(bad)
        return norm

    def reads(self) -> bool:
        """Whether the numbers of the update just made are needed: on the CPU always, it waits for nothing."""
        config, update = self.config, self.update
        times = config.log_every, config.validate_every, config.save_every, config.max_nonfinite
        due = update == config.updates or any(update % every == 0 for every in times)
        return due or self.device.type == "cpu"

    def read(self, scalars: Scalars) -> dict[str, float]:
        """Scalars of the update just made, the mean of all processes; without its losses if it was skipped.

        Raises:
            RunError: too many updates in a row were skipped.
        """
        tensors = [
            torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in scalars.values()
        ]
        packed = torch.cat([torch.stack(tensors), self.skips.counts.double()]).tolist()
        read = self.processes.mean(dict(zip(scalars, packed[:-3], strict=True)))
        self.skips.read([int(count) for count in packed[-3:]], self.update - 1, self.config.max_nonfinite)
        rate = {"lr": self.optimizer.get_lr()[0]}
        return read | rate if math.isfinite(read["gradient_norm"]) else rate

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured."""
        return autocast(self.device, self.config.precision)

    def after_step(self, scalars: dict[str, float], journal: MetricLogger | None) -> None:
        """Log, validate and save when it is time."""
        config, last = self.config, self.update == self.config.updates
        if self.update % config.validate_every == 0 or last:
            scalars |= {f"valid_{name}": value for name, value in self.validate().items()}
        logged = self.update % config.log_every == 0 or last or "valid_loss" in scalars
        if logged and journal is not None:
            journal.write(self.update, self.skips.total, scalars)
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
            "skipped": self.skips.total,
            "in_a_row": self.skips.in_a_row,
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
        saved = load_weights_only(self.folder / newest)
        self.task.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.update, self.best = saved["update"], saved["best"]
        self.skips = SkipCounter(self.device, saved["skipped"], saved["in_a_row"])
        if changed := changes(saved.get("environment", {}), self.environment()):
            what = "%s goes on after update %d with %s; its numbers will not be those of an undisturbed run"
            log.warning(what, self.name, self.update, changed)


def _write(content: dict[str, Any], path: Path) -> None:
    with replacing(path) as partial:
        torch.save(content, partial)


def _seconds(batches: list[Batch]) -> float:
    return sum(batch.waveforms.numel() for batch in batches) / SAMPLE_RATE


def _shown(scalars: Mapping[str, float]) -> dict[str, str]:
    shown = {"loss": f"{scalars.get('loss', math.nan):.3f}"}
    shown |= {name: f"{value:.3f}" for name, value in scalars.items() if name.startswith("sparsity")}
    if (speed := scalars.get("audio_seconds_per_second")) is not None:
        shown["audio-s/s"] = f"{speed:.0f}"
    return shown
