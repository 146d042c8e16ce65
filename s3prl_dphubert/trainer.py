"""The training loop: accumulation, mixed precision, clipping, checkpoints, resume.

It knows nothing of the task. Randomness is a function of (seed, update, micro-batch).
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from .checkpoint import read_pickle
from .config import TrainConfig
from .data.batches import Batch, BatchStream, loader
from .errors import RunError
from .files import replacing
from .schedule import linear_schedule

log = logging.getLogger(__name__)
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


class Trainer:
    """Runs a task to its last update, from scratch or from the newest checkpoint.

    Args:
        task: what to train.
        config: how.
        stream: micro-batches by global index.
        folder: for checkpoints, ``log.jsonl`` and TensorBoard events.
        seed: of everything random.
        device: where to train.
        name: shown in the progress line.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        stream: BatchStream,
        folder: Path,
        seed: int = 0,
        device: str = "cpu",
        name: str = "train",
    ) -> None:
        self.task, self.config, self.stream, self.folder = task, config, stream, folder
        self.seed, self.device, self.name = seed, torch.device(device), name
        self.groups = task.parameter_groups()
        self.bases = [group.pop("base_lr") for group in self.groups]
        self.optimizer = torch.optim.AdamW(self.groups, lr=0.0, weight_decay=0.0)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.update, self.skipped, self.in_a_row = 0, 0, 0
        self.best: float | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Train to the end.

        Raises:
            RunError: too many updates in a row had a non-finite loss or gradient.
        """
        self.resume()
        if self.update >= self.config.updates:
            return
        self.task.module.train()
        writer = SummaryWriter(self.folder, purge_step=self.update)
        rows = _open_log(self.folder / "log.jsonl", self.update)
        bar = tqdm(
            initial=self.update, total=self.config.updates, desc=self.name, unit="update", mininterval=1.0
        )
        try:
            for batches in self.micro_batches():
                began = time.monotonic()
                scalars = self.train_step(batches)
                audio = sum(batch.waveforms.numel() for batch in batches) / 16_000
                scalars["audio_seconds_per_second"] = audio / max(time.monotonic() - began, 1e-9)
                self.update += 1
                bar.update()
                bar.set_postfix(_shown(scalars), refresh=False)
                self.after_step(scalars, writer, rows)
        finally:
            bar.close()
            rows.close()
            writer.close()

    def micro_batches(self) -> Iterator[list[Batch]]:
        """Yield the micro-batches of each remaining update."""
        each = self.config.accumulate
        start, stop = self.update * each, self.config.updates * each
        batches = iter(loader(self.stream, start, stop, self.config.num_workers))
        for _ in range(self.update, self.config.updates):
            yield [next(batches) for _ in range(each)]

    def train_step(self, batches: list[Batch]) -> dict[str, float]:
        """One update; a non-finite loss or gradient skips it."""
        config = self.config
        self.optimizer.zero_grad(set_to_none=True)
        for group, base in zip(self.optimizer.param_groups, self.bases, strict=True):
            group["lr"] = linear_schedule(self.update, base, config.warmup, config.updates)
        totals: dict[str, float] = {}
        finite = True
        for micro, batch in enumerate(batches):
            seeds = np.random.SeedSequence((self.seed, self.update, micro)).generate_state(2)
            torch.manual_seed(int(seeds[0]))
            generator = torch.Generator().manual_seed(int(seeds[1]))
            batch = batch._replace(
                waveforms=batch.waveforms.to(self.device), lengths=batch.lengths.to(self.device)
            )
            with self.autocast():
                loss, scalars = self.task.step(batch, self.update, generator)
            finite = bool(torch.isfinite(loss.detach()))
            if not finite:
                break
            self.scaler.scale(loss / len(batches)).backward()
            for name, value in {"loss": float(loss.detach()), **scalars}.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
        totals["lr"] = self.optimizer.param_groups[0]["lr"]
        if finite:
            totals["gradient_norm"] = self._optimise()
            finite = math.isfinite(totals["gradient_norm"])
        self._count(finite)
        return totals

    def _optimise(self) -> float:
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.clip))
        if math.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm

    def _count(self, finite: bool) -> None:
        self.in_a_row = 0 if finite else self.in_a_row + 1
        self.skipped += not finite
        if not finite:
            log.warning("update %d skipped: non-finite loss or gradient", self.update)
        if self.in_a_row >= self.config.max_nonfinite:
            raise RunError(
                f"{self.in_a_row} updates in a row had a non-finite loss or gradient; lower the learning rate"
            )

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured."""
        dtype = AUTOCAST.get(self.config.precision)
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def after_step(self, scalars: dict[str, float], writer: SummaryWriter, rows: Any) -> None:
        """Log, validate and save when it is time."""
        config, last = self.config, self.update == self.config.updates
        if self.update % config.validate_every == 0 or last:
            scalars |= {f"valid_{name}": value for name, value in self.validate().items()}
        if self.update % config.log_every == 0 or last or "valid_loss" in scalars:
            rows.write(json.dumps({"update": self.update, "skipped": self.skipped, **scalars}) + "\n")
            rows.flush()
            for name, value in scalars.items():
                writer.add_scalar(f"{self.name}/{name}", value, self.update)
        if self.update % config.save_every == 0 or last:
            self.save()

    def validate(self) -> dict[str, float]:
        """Run the task's validation and keep the best weights."""
        self.task.module.eval()
        with torch.no_grad(), self.autocast():
            scalars = self.task.validate()
        self.task.module.train()
        loss = scalars.get("loss")
        if loss is not None and math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best = loss
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
        }
        _write(content, self.folder / f"state-{self.update:08d}.pt")
        for old in self.states()[: -self.config.keep]:
            old.unlink()

    def states(self) -> list[Path]:
        """Checkpoints, oldest first."""
        return sorted(self.folder.glob("state-*.pt"))

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one."""
        states = self.states()
        if not states:
            return
        saved = read_pickle(states[-1])
        self.task.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.update, self.skipped = saved["update"], saved["skipped"]
        self.in_a_row, self.best = saved["in_a_row"], saved["best"]


def _write(content: dict[str, Any], path: Path) -> None:
    with replacing(path) as partial:
        torch.save(content, partial)


def _open_log(path: Path, update: int) -> Any:
    """Open the log for appending, without rows that a resumed run will write again."""
    if path.exists():
        rows = [row for row in path.read_text(encoding="utf8").splitlines() if _update_of(row) <= update]
        with replacing(path) as partial:
            partial.write_text("".join(f"{row}\n" for row in rows), encoding="utf8")
    return path.open("a", encoding="utf8")


def _update_of(row: str) -> float:
    try:
        return json.loads(row)["update"]
    except (json.JSONDecodeError, KeyError):  # the row that a kill cut short
        return math.inf


def _shown(scalars: dict[str, float]) -> dict[str, str]:
    shown = {"loss": f"{scalars.get('loss', math.nan):.3f}"}
    shown |= {name: f"{value:.3f}" for name, value in scalars.items() if name.startswith("sparsity")}
    shown["audio-s/s"] = f"{scalars['audio_seconds_per_second']:.0f}"
    return shown
