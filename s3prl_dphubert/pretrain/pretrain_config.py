"""Configurations of a pretraining run: ``-g``, the model, and ``-c``, its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..compression.compress_config import CompressConfig
from ..data.dataset import DataConfig
from ..distillation.objective import ObjectiveConfig
from ..distillation.student_init import StudentConfig
from ..errors import ConfigError
from ..pruning.budget import Budget
from ..pruning.gates import GateConfig
from ..training.train_config import TrainConfig
from ..utils.config_io import from_dict, read_yaml, to_dict

OPTIMIZER = "DPHuBERT"


@dataclass(frozen=True)
class PretrainRecipe:
    """Upstream configuration, ``-g``.

    Args:
        teacher: name, path or Hub id, as for ``compress``.
        stage: 1 trains with gates, 2 trains the pruned model.
        stage1: result of stage 1, for stage 2: ``states-N.ckpt``, the model directory ``states-N`` beside
            it, or the directory of the experiment, of which the last checkpoint is taken.
        seed: seed of everything random; ``None`` takes s3prl's ``--seed``.
        gates: units that are gated.
        budget: share of the teacher's cost to remove.
        objective: hidden states to match, and their distance.
        student: shape of the student; ``None`` starts from a copy of the teacher. Stage 2 without
            ``stage1`` distills this student without pruning.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    teacher: str
    stage: int = 1
    stage1: str | None = None
    seed: int | None = None
    gates: GateConfig = field(default_factory=GateConfig)
    budget: Budget = field(default_factory=Budget)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    student: StudentConfig | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.stage not in (1, 2):
            faults.append(f"stage is {self.stage}, allowed: 1, 2")
        if self.stage == 1 and self.stage1 is not None:
            faults.append(f"stage1 is {self.stage1!r}, allowed in stage 1: null")
        if self.stage == 2 and self.stage1 is None and self.student is None:
            faults.append(
                "stage1 is missing, allowed in stage 2: the result of stage 1, or a student instead"
            )
        if self.seed is not None and self.seed < 0:
            faults.append(f"seed is {self.seed}, allowed: 0 or more")
        ConfigError.raise_for("upstream configuration (-g)", faults)

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any]) -> PretrainRecipe:
        """Read a YAML file, or the values in a checkpoint.

        A missing seed is filled in and paths become absolute, so that a resumed run finds the same.

        Raises:
            ConfigError: listing every field that is wrong.
        """
        if isinstance(source, Mapping):
            recipe = from_dict(cls, source)
        else:
            recipe = from_dict(cls, read_yaml(source), str(source))
        seed = torch.initial_seed() if recipe.seed is None else recipe.seed
        stage1 = None if recipe.stage1 is None else _absolute(recipe.stage1)
        return replace(recipe, seed=seed, teacher=_absolute(recipe.teacher), stage1=stage1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for :meth:`read`."""
        return to_dict(self)

    def run(self, data: DataConfig) -> CompressConfig:
        """Return the run of ``compress`` that this stage is a part of, with default training settings."""
        train = TrainConfig(updates=max(TrainConfig.updates, self.budget.warmup))
        is_pruned = self.stage == 1 or self.stage1 is not None
        return CompressConfig(
            teacher=self.teacher,
            data=data,
            seed=self.seed or 0,
            gates=self.gates,
            budget=self.budget,
            objective=self.objective,
            student=self.student,
            stage1=train if is_pruned else None,
            stage2=None if self.stage == 1 else train,
        )


def _absolute(text: str) -> str:
    path = Path(text)
    return str(path.resolve()) if path.exists() else text


@dataclass(frozen=True)
class RunnerData(DataConfig):
    """``pretrain_expert.datarc`` of ``-c``: ``data`` of a run of ``compress``, and two fields of s3prl.

    Args:
        num_workers: processes that read audio.
        train_batch_size: not used; s3prl prints it.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    num_workers: int = TrainConfig.num_workers
    train_batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.valid is not None:
            fault = f"valid is {self.valid!r}, allowed: null; s3prl's pretraining does not validate"
            ConfigError.raise_for("data", [fault])

    @classmethod
    def read(cls, datarc: Mapping[str, Any]) -> RunnerData:
        """Read the section.

        Raises:
            ConfigError: listing every field that is wrong.
        """
        return from_dict(cls, datarc, "pretrain_expert.datarc")


@dataclass(frozen=True)
class OptimizerSection:
    """``optimizer`` of ``-c``.

    Args:
        name: ``DPHuBERT``.
        lr: peak learning rate of weights and projections.
        gate_lr: peak learning rate of gates and multipliers.
        warmup: updates in which the learning rates rise.
    """

    name: str
    lr: float = TrainConfig.lr
    gate_lr: float = TrainConfig.gate_lr
    warmup: int = TrainConfig.warmup


@dataclass(frozen=True)
class RunnerSection:
    """``runner`` of ``-c``, the fields that this recipe uses.

    Args:
        n_epochs: length of the training in epochs; up to 0, ``total_steps`` counts.
        total_steps: length of the training in updates.
        gradient_accumulate_steps: micro-batches per update.
        gradient_clipping: largest gradient norm.
        log_step: updates between logs.
        save_step: updates between checkpoints.
        max_keep: number of checkpoints to keep.
        fp16: train in ``fp16``. After an overflow, s3prl's runner may never lower the scale of the loss, so
            that all later updates are skipped; ``precision: bf16`` avoids that.
        precision: ``fp32`` or ``bf16``.
    """

    n_epochs: int
    total_steps: int
    gradient_accumulate_steps: int
    gradient_clipping: float
    log_step: int
    save_step: int
    max_keep: int
    fp16: bool = False
    precision: str = "fp32"


FIELD_OF = {
    "updates": "runner.total_steps",
    "clip": "runner.gradient_clipping",
    "accumulate": "runner.gradient_accumulate_steps",
    "save_every": "runner.save_step",
    "keep": "runner.max_keep",
    "log_every": "runner.log_step",
    "num_workers": "pretrain_expert.datarc.num_workers",
    **{name: f"optimizer.{name}" for name in ("lr", "gate_lr", "warmup")},
}
"""Field of :class:`TrainConfig` -> field of ``-c`` that sets it."""


@dataclass(frozen=True)
class RunnerConfig:
    """Training of a stage, ``-c``.

    Args:
        optimizer: learning rates.
        runner: length of the training, precision, logging and saving.
        scheduler: has to be empty.
        epoch: micro-batches of an epoch.
        num_workers: processes that read audio.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    optimizer: OptimizerSection
    runner: RunnerSection
    scheduler: Any
    epoch: int
    num_workers: int

    def __post_init__(self) -> None:
        faults = []
        runner = self.runner
        if self.optimizer.name != OPTIMIZER:
            faults.append(f"optimizer.name is {self.optimizer.name!r}, allowed: {OPTIMIZER}")
        if self.scheduler:
            faults.append(f"scheduler is given, allowed: none; {OPTIMIZER} has warm-up and decay")
        if runner.precision not in ("fp32", "bf16"):
            faults.append(
                f"runner.precision is {runner.precision!r}, allowed: fp32, bf16; fp16 is runner.fp16: true"
            )
        faults += [
            f"runner.{name} is {getattr(runner, name)}, allowed by s3prl: below the {self.updates} steps"
            for name in ("log_step", "save_step")
            if getattr(runner, name) >= self.updates
        ]
        try:
            self.training()
        except ConfigError as error:
            for fault in error.faults:
                name, _, rest = fault.partition(" ")
                faults.append(f"{FIELD_OF.get(name, name)} {rest}")
        ConfigError.raise_for("runner configuration (-c)", faults)

    @classmethod
    def read(cls, config: Mapping[str, Any], epoch: int, num_workers: int) -> RunnerConfig:
        """Read s3prl's whole configuration.

        Raises:
            ConfigError: listing every field that is wrong.
        """
        names = {field.name for field in fields(RunnerSection)}
        values = {
            "optimizer": config.get("optimizer"),
            "runner": {name: value for name, value in config["runner"].items() if name in names},
            "scheduler": config.get("scheduler"),
            "epoch": epoch,
            "num_workers": num_workers,
        }
        return from_dict(cls, values, "runner configuration (-c)")

    def training(self) -> TrainConfig:
        """Return the training of the stage in the terms of ``compress``.

        Raises:
            ConfigError: listing every field that is wrong.
        """
        runner, precision = self.runner, self.runner.precision
        return TrainConfig(
            updates=self.updates,
            warmup=self.optimizer.warmup,
            lr=self.optimizer.lr,
            gate_lr=self.optimizer.gate_lr,
            clip=runner.gradient_clipping,
            accumulate=runner.gradient_accumulate_steps,
            precision="fp16" if runner.fp16 else precision if precision == "bf16" else "fp32",
            save_every=runner.save_step,
            keep=runner.max_keep,
            log_every=runner.log_step,
            num_workers=self.num_workers,
        )

    @property
    def updates(self) -> int:
        """Updates that s3prl will make."""
        if self.runner.n_epochs > 0:
            return int(self.runner.n_epochs * self.epoch / max(self.runner.gradient_accumulate_steps, 1))
        return self.runner.total_steps

    @property
    def last_epoch(self) -> int:
        """Number in the name that s3prl gives the last checkpoint, if above 0."""
        if self.runner.n_epochs > 0:
            return self.runner.n_epochs
        return int(self.runner.total_steps * self.runner.gradient_accumulate_steps / self.epoch)
