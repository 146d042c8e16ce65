"""Training loop: accumulation over micro-batches and processes, mixed precision, clipping, resuming.

The loop knows nothing of its task. On a GPU it reads scalars back only when they are logged, so that the
device never waits for the host.

Random numbers are a function of (seed, update, micro-batch of the update), whichever process has that
micro-batch, so that one process which accumulates 2 equals two which accumulate 1. Micro-batch
``i * world + rank`` of an update is the ``i``-th of process ``rank``; all have the same weight. Only
process 0 writes.
"""

from __future__ import annotations

import logging
import math
import operator
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..constants import SAMPLE_RATE
from ..data.batches import Batch, BatchStream, loader
from ..errors import CheckpointError
from ..model.speech_model import autocast
from ..model.state_dict import load_weights_only
from ..utils.environment import Environment, changes, environment
from ..utils.interrupts import delayed_interrupt
from ..utils.malloc import keep_pages
from .best_checkpoints import BestCheckpoints, write_checkpoint
from .distributed import Processes
from .gradient_exchange import GradientExchange
from .metric_logger import MetricLogger
from .nonfinite import SkipCounter
from .optimizer import ScheduledAdamW
from .train_config import TrainConfig
from .update_progress import UpdateProgress

log = logging.getLogger(__name__)
Scalars = dict[str, Any]
"""Name -> a number, or a 0-d tensor on the device."""


class TrainingTask(Protocol):
    """Model and loss that a :class:`Trainer` optimizes."""

    module: nn.Module
    """Module that holds all parameters to optimize and to save."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups; each names its peak ``base_lr`` and may ``maximize``."""

    def step(self, batch: Batch, update: int, generator: torch.Generator) -> tuple[Tensor, Scalars]:
        """Compute the loss of one micro-batch, and named scalars without gradient."""

    def after_update(self, update: int) -> None:
        """Do what has to follow the optimizer step of an update, alike in all processes."""

    def validate(self) -> dict[str, float]:
        """Return named scalars of a validation, ``loss`` among them; empty without validation data."""


def seed_micro_batch(seed: int, update: int, micro: int) -> torch.Generator:
    """Seed torch for one micro-batch, and return the generator of its gates."""
    seeds = np.random.SeedSequence((seed, update, micro)).generate_state(2)
    torch.manual_seed(int(seeds[0]))
    return torch.Generator().manual_seed(int(seeds[1]))


class Trainer:
    """Train a task to its last update, from scratch or from the newest checkpoint.

    Args:
        task: model and loss.
        config: updates, learning rates, precision, and intervals of logging and saving.
        stream: micro-batches by global index.
        folder: directory of checkpoints, ``log.jsonl`` and TensorBoard events.
        seed: seed of everything random.
        name: name in the progress bar and in warnings.
        processes: all processes of the run, and the device of this one; by default one process on the CPU.
        milestones: updates after which a checkpoint is written and never deleted.
    """

    def __init__(
        self,
        task: TrainingTask,
        config: TrainConfig,
        stream: BatchStream,
        folder: Path,
        seed: int = 0,
        name: str = "train",
        processes: Processes | None = None,
        milestones: frozenset[int] = frozenset(),
    ) -> None:
        self.milestones = milestones
        self.task, self.config, self.stream, self.folder = task, config, stream, folder
        self.seed, self.name = seed, name
        self.processes = processes or Processes()
        self.device = self.processes.device
        self.optimizer = ScheduledAdamW(task.parameter_groups(), config.warmup, config.updates)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.update, self.skips = 0, SkipCounter(self.device)
        self.exchange: GradientExchange | None = None  # of several processes, while they run
        self.validated = BestCheckpoints(folder, config.average_best, write=self.processes.main)
        if self.processes.main:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def best(self) -> float | None:
        """Lowest validation loss so far."""
        return self.validated.lowest

    def run(self) -> None:
        """Train to the end.

        Raises:
            RunError: too many updates in a row had a non-finite loss or gradient, or another
                process was lost.
        """
        self.resume()
        if self.update >= self.config.updates:
            return
        self.processes.broadcast_module(self.task.module)
        self.task.module.train()
        if self.device.type == "cpu":
            keep_pages()
        main, first, updates = self.processes.main, self.update, self.config.updates
        logger = MetricLogger(self.folder, self.name, first) if main else None
        progress = UpdateProgress(f"{self.name} on {self.device.type}", first, updates, enabled=main)
        try:
            began, audio_seconds = time.monotonic(), 0.0
            for batches in self.micro_batches():
                scalars = self.train_step(batches)
                samples = sum(batch.waveforms.numel() for batch in batches)
                audio_seconds += samples / SAMPLE_RATE * self.processes.world
                self.update += 1
                if not self.must_read_scalars():
                    progress.step()
                    continue
                scalars = self.read_scalars(scalars)
                now = time.monotonic()
                scalars["audio_seconds_per_second"] = audio_seconds / max(now - began, 1e-9)
                began, audio_seconds = now, 0.0
                progress.step(scalars)
                self.after_step(scalars, logger)
        finally:
            progress.close()
            if logger is not None:
                logger.close()
            if self.exchange is not None:
                self.exchange.close()
                self.exchange = None

    def micro_batches(self) -> Iterator[list[Batch]]:
        """Yield the micro-batches of this process for each remaining update."""
        config, world, rank = self.config, self.processes.world, self.processes.rank
        per_update = config.accumulate * world
        start, stop = self.update * per_update, config.updates * per_update
        with delayed_interrupt():
            on_gpu = self.device.type != "cpu"
            batches = iter(
                loader(self.stream, start, stop, config.num_workers, world, rank, pin_memory=on_gpu)
            )
        ready: list[list[Batch]] = []
        for _ in range(self.update, config.updates):
            # One update ahead, so that a GPU has its audio before it is done with the update before.
            ready.append([next(batches).to(self.device) for _ in range(config.accumulate)])
            if len(ready) > 1 or not on_gpu:
                yield ready.pop(0)
        yield from ready

    def train_step(self, batches: list[Batch]) -> Scalars:
        """Make one update in all processes; a non-finite loss or gradient in one skips it in all.

        Returns:
            The scalars of this process, means over its micro-batches, still on the device.
        """
        world = self.processes.world
        self._zero_gradients()
        self.optimizer.schedule(self.update)
        totals: Scalars = {}
        nan_if_bad = torch.zeros((), device=self.device)
        for index, batch in enumerate(batches):
            loss, scalars = self._forward(batch, index * world + self.processes.rank)
            nan_if_bad += loss.detach() * 0  # NaN if the loss is infinite or NaN
            if self.exchange is not None and index == len(batches) - 1:
                self.exchange.start(nan_if_bad)
            self.scaler.scale(loss / (len(batches) * world)).backward()
            for name, value in {"loss": loss.detach(), **scalars}.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
        norm = self._optimize(nan_if_bad)
        self.task.after_update(self.update)
        return totals | {"gradient_norm": norm}

    def _zero_gradients(self) -> None:
        if self.exchange is None and self.processes.world > 1:
            groups = self.optimizer.param_groups
            last_first = [p for group in groups for p in reversed(group["params"])]  # as gradients come
            self.exchange = GradientExchange(last_first, self.processes)
        if self.exchange is None:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self.exchange.reset()

    def _forward(self, batch: Batch, micro: int) -> tuple[Tensor, Scalars]:
        """Compute loss and scalars of a micro-batch, given its index within the update."""
        generator = seed_micro_batch(self.seed, self.update, micro)
        with self.autocast():
            return self.task.step(batch.to(self.device), self.update, generator)

    def _optimize(self, nan_if_bad: Tensor) -> Tensor:
        """Finish the sum of all processes' gradients, step if all is finite, and return their norm (0-d)."""
        if self.exchange is None:
            gradients = self.optimizer.dense_gradients()
            gradients[0] += nan_if_bad.to(gradients[0])
        else:
            self.exchange.finish()
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip).detach()
        skipped = ~torch.isfinite(norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # skips the step itself
        else:
            self.optimizer.step_unless(skipped)
        self.scaler.update()
        self.skips.count(skipped)
        return norm

    def must_read_scalars(self) -> bool:
        """Return whether this step's scalars must be read back (always on CPU, where reading is free)."""
        config, update = self.config, self.update
        if self.device.type == "cpu" or update == config.updates:
            return True
        intervals = config.log_every, config.validate_every, config.save_every, config.max_nonfinite
        return update in self.milestones or any(update % interval == 0 for interval in intervals)

    def read_scalars(self, scalars: Scalars) -> dict[str, float]:
        """Return the last update's scalars, averaged over processes; of a skipped one only the learning rate.

        Raises:
            RunError: too many updates in a row were skipped.
        """
        tensors = [
            torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in scalars.values()
        ]
        means = self.processes.mean(dict(zip(scalars, torch.stack(tensors).tolist(), strict=True)))
        self.skips.read(self.update - 1, self.config.max_nonfinite)
        lr = {"lr": self.optimizer.get_lr()[0]}
        return means | lr if math.isfinite(means["gradient_norm"]) else lr

    def autocast(self) -> torch.autocast:
        """Return the context of the configured precision."""
        return autocast(self.device, self.config.precision)

    def after_step(self, scalars: dict[str, float], logger: MetricLogger | None) -> None:
        """Validate, log and save when they are due."""
        config, last = self.config, self.update == self.config.updates
        if self.update % config.validate_every == 0 or last:
            scalars |= {f"valid_{name}": value for name, value in self.validate().items()}
        must_log = self.update % config.log_every == 0 or last or "valid_loss" in scalars
        if must_log and logger is not None:
            logger.write(self.update, self.skips.total, scalars)
        is_due = self.update % config.save_every == 0 or last or self.update in self.milestones
        if is_due and self.processes.main:
            self.save()

    def validate(self) -> dict[str, float]:
        """Validate in process 0, return its scalars in all processes, and save the best weights."""
        scalars: dict[str, float] = {}
        if self.processes.main:
            self.task.module.eval()
            with torch.no_grad(), self.autocast():
                scalars = self.task.validate()
            self.task.module.train()
        scalars = self.processes.broadcast(scalars)
        loss = scalars.get("loss")
        if loss is not None and math.isfinite(loss):
            self.validated.add(loss, self.update, self.task.module)
        return scalars

    def save(self) -> None:
        """Write a checkpoint and delete the oldest ones."""
        content = {
            "module": self.task.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "update": self.update,
            "skipped": self.skips.total,
            "in_a_row": self.skips.in_a_row,
            "validated": self.validated.losses,
            "environment": self.environment(),
        }
        write_checkpoint(content, self._state(self.update))
        milestones = {self._state(update) for update in self.milestones}
        for old in self.states()[: -self.config.keep]:
            if old not in milestones:
                old.unlink()

    def _state(self, update: int) -> Path:
        return self.folder / f"state-{update:08d}.pt"

    def states(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted(self.folder.glob("state-*.pt"))

    def environment(self) -> Environment:
        """Return the facts that must not change for a resumed run to be exact."""
        return environment(self.device, self.config.precision, self.processes.world, self.config.accumulate)

    def resume(self) -> None:
        """Load the newest checkpoint that process 0 can read, if there is one.

        Raises:
            CheckpointError: there are checkpoints, but none of them can be read.
        """
        name, before = self._load_newest() if self.processes.main else ("", {})
        name = self.processes.broadcast(name)
        if name and not self.processes.main:
            self._load(self.folder / name)
        if changed := changes(before, self.environment()):
            message = (
                "%s goes on after update %d with %s; its numbers will not be those of an undisturbed run"
            )
            log.warning(message, self.name, self.update, changed)

    def _load_newest(self) -> tuple[str, Environment]:
        """Load the newest checkpoint that is not damaged; return its name and environment."""
        faults: list[str] = []
        for path in reversed(self.states()):
            try:
                before = self._load(path)
            except CheckpointError as error:
                faults.append(str(error))
                continue
            for fault in faults:
                log.warning("%s; going on from %s", fault, path.name)
            return path.name, before
        if faults:
            raise CheckpointError(f"{'; '.join(faults)}; remove {self.folder} to train {self.name} anew")
        return "", {}

    def _load(self, path: Path) -> Environment:
        """Continue from a checkpoint, and return the environment that it was written in.

        Raises:
            CheckpointError: it is damaged, or of another training.
        """
        saved = load_weights_only(path)
        try:
            self.task.module.load_state_dict(saved["module"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if saved["scaler"]:  # empty after another precision than fp16, which starts with a new scale
                self.scaler.load_state_dict(saved["scaler"])
            self.update, kept = operator.index(saved["update"]), self.validated
            self.validated = BestCheckpoints(self.folder, kept.count, saved["validated"], kept.write)
            self.skips = SkipCounter(self.device, saved["skipped"], saved["in_a_row"], self.update)
            return dict(saved.get("environment", {}))
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged or of another training ({error!r:.200})") from error
