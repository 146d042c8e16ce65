"""What a pretraining run is told: ``-g`` says what is compressed to what, ``-c`` how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from ..utils.config_io import from_dict, is_int, read_yaml, to_dict

OPTIMIZER = "DPHuBERT"


@dataclass(frozen=True)
class PretrainRecipe:
    """``-g``, the upstream configuration.

    Args:
        teacher: name, path or Hub id, as for ``compress``.
        stage: 1 trains with gates, 2 trains what stage 1 left.
        stage1: for stage 2, where stage 1 ended: ``states-N.ckpt``, its model directory ``states-N``,
            or the experiment's directory, whose last checkpoint then counts.
        seed: of everything random; ``None`` takes s3prl's ``--seed``.
        gates: which units are gated.
        budget: what the pruned model may cost.
        objective: what is distilled.
        student: a shape of its own; ``None`` starts from a copy of the teacher. Stage 2 without
            ``stage1`` distils it without pruning.

    Raises:
        ConfigError: naming every field that is wrong.
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
            faults.append("stage1 is missing, allowed in stage 2: where stage 1 ended, or else a student")
        if self.seed is not None and self.seed < 0:
            faults.append(f"seed is {self.seed}, allowed: 0 or more")
        ConfigError.raise_for("upstream configuration (-g)", faults)

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any]) -> PretrainRecipe:
        """Read a YAML file, or the values that a checkpoint holds.

        The seed and the paths become what they are here and now, so that a run which is resumed
        finds the same.

        Raises:
            ConfigError: listing everything that is wrong.
        """
        values = dict(source) if isinstance(source, Mapping) else read_yaml(source)
        recipe: PretrainRecipe = from_dict(cls, values)
        seed = torch.initial_seed() if recipe.seed is None else recipe.seed
        stage1 = None if recipe.stage1 is None else _absolute(recipe.stage1)
        return replace(recipe, seed=seed, teacher=_absolute(recipe.teacher), stage1=stage1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which :meth:`read` takes."""
        return to_dict(self)

    def run(self, data: DataConfig) -> CompressConfig:
        """The run of ``compress`` of which this one trains a stage, under its default settings."""
        settings = TrainConfig()
        pruned = self.stage == 1 or self.stage1 is not None
        return CompressConfig(
            teacher=self.teacher,
            data=data,
            seed=self.seed or 0,
            gates=self.gates,
            budget=self.budget,
            objective=self.objective,
            student=self.student,
            stage1=settings if pruned else None,
            stage2=None if self.stage == 1 else settings,
        )


def _absolute(text: str) -> str:
    path = Path(text)
    return str(path.resolve()) if path.exists() else text


def read_data(values: Mapping[str, Any]) -> tuple[DataConfig, int]:
    """``pretrain_expert.datarc`` of ``-c`` -> where the audio is, and how many processes read it.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    plain = {name: value for name, value in values.items() if name not in ("num_workers", "train_batch_size")}
    if plain.pop("valid", None) is not None:
        raise ConfigError("datarc: valid is given, allowed: none; s3prl's pretraining does not validate")
    workers = values.get("num_workers", TrainConfig.num_workers)
    if not is_int(workers):
        raise ConfigError(f"datarc: num_workers is {workers!r}, allowed: 0 or more")
    return from_dict(DataConfig, plain), workers


def read_training(config: Mapping[str, Any], epoch: int, num_workers: int) -> TrainConfig:
    """``-c`` -> how the stage is trained, in the terms of ``compress``.

    Args:
        config: s3prl's whole configuration.
        epoch: micro-batches of an epoch.
        num_workers: processes that read audio.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    runner, optimizer = dict(config["runner"]), dict(config["optimizer"])
    faults = []
    if (name := optimizer.pop("name", None)) != OPTIMIZER:
        faults.append(
            f"optimizer.name is {name!r}, allowed: {OPTIMIZER}, which knows of gates and multipliers"
        )
    if config.get("scheduler"):
        faults.append(f"scheduler is given, allowed: none; {OPTIMIZER} has warm-up and decay")
    faults += [
        f"optimizer.{name} is not known, allowed: lr, gate_lr, warmup"
        for name in optimizer
        if name not in ("lr", "gate_lr", "warmup")
    ]
    precision = runner.get("precision", "fp32")
    if precision not in ("fp32", "bf16"):
        faults.append(
            f"runner.precision is {precision!r}, allowed: fp32, bf16; runner.fp16: true for the third"
        )
    accumulate = runner["gradient_accumulate_steps"]
    updates = steps(runner, epoch)
    for name in ("log_step", "save_step"):
        if runner[name] >= updates:
            faults.append(f"runner.{name} is {runner[name]}, allowed by s3prl: below the {updates} steps")
    ConfigError.raise_for("runner configuration (-c)", faults)
    values = {
        **optimizer,
        "updates": updates,
        "clip": runner["gradient_clipping"],
        "accumulate": accumulate,
        "precision": "fp16" if runner.get("fp16") else precision,
        "save_every": runner["save_step"],
        "keep": runner["max_keep"],
        "log_every": runner["log_step"],
        "num_workers": num_workers,
    }
    return from_dict(TrainConfig, values)


def steps(runner: Mapping[str, Any], epoch: int) -> int:
    """Updates that s3prl will make: ``n_epochs`` counts where it is above 0, else ``total_steps``."""
    if runner["n_epochs"] > 0:
        return int(runner["n_epochs"] * epoch / runner["gradient_accumulate_steps"])
    return runner["total_steps"]


def last_epoch(runner: Mapping[str, Any], epoch: int) -> int:
    """The number by which s3prl names the last checkpoint, where it is above 0."""
    if runner["n_epochs"] > 0:
        return runner["n_epochs"]
    return int(runner["total_steps"] * runner["gradient_accumulate_steps"] / epoch)
