"""Configurations of a compression run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .budget import Budget
from .data.batches import BatchConfig
from .errors import ConfigError
from .gates import GateConfig
from .model.precision import PRECISIONS
from .objective import ObjectiveConfig
from .start import StudentConfig

DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class TrainConfig:
    """How one stage is trained.

    Args:
        updates: optimizer steps.
        warmup: updates in which the learning rates rise; then they fall linearly to 0.
        lr: peak learning rate of weights and projections.
        gate_lr: peak learning rate of gates and multipliers.
        clip: largest gradient norm over all optimised parameters together.
        accumulate: micro-batches an update.
        precision: ``fp32``, ``bf16`` or ``fp16`` (autocast).
        teacher_precision: the same for the teacher alone, which has no gradients to lose; ``None``
            for that of the student.
        max_nonfinite: stop after so many updates in a row with a non-finite loss or gradient.
        save_every: updates between checkpoints.
        keep: checkpoints to keep.
        validate_every: updates between validations.
        log_every: updates between rows of the log.
        num_workers: processes that read audio; 0 reads in the training process.
    """

    updates: int = 50_000
    warmup: int = 15_000
    lr: float = 2e-4
    gate_lr: float = 0.02
    clip: float = 10.0
    accumulate: int = 1
    precision: str = "fp32"
    teacher_precision: str | None = None
    max_nonfinite: int = 20
    save_every: int = 1000
    keep: int = 2
    validate_every: int = 1000
    log_every: int = 50
    num_workers: int = 2

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.warmup <= self.updates:
            faults.append(f"warmup is {self.warmup}, allowed: 0 to updates ({self.updates})")
        for name in (
            "updates",
            "accumulate",
            "max_nonfinite",
            "save_every",
            "keep",
            "validate_every",
            "log_every",
        ):
            if getattr(self, name) < 1:
                faults.append(f"{name} is {getattr(self, name)}, allowed: 1 or more")
        for name in ("lr", "gate_lr", "clip"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name)}, allowed: more than 0")
        if self.num_workers < 0:
            faults.append(f"num_workers is {self.num_workers}, allowed: 0 or more")
        if self.precision not in PRECISIONS:
            faults.append(f"precision is {self.precision!r}, allowed: {', '.join(PRECISIONS)}")
        if self.teacher_precision not in (None, *PRECISIONS):
            allowed = f"null, {', '.join(PRECISIONS)}"
            faults.append(f"teacher_precision is {self.teacher_precision!r}, allowed: {allowed}")
        ConfigError.raise_for("training", faults)


@dataclass(frozen=True)
class DataConfig:
    """Where the audio is.

    Args:
        train: manifest of the training utterances.
        valid: manifest for validation, or ``None`` to validate on none.
        valid_batches: batches of it to use.
        max_bad_fraction: share of unreadable files above which a run does not start.
        batch: how utterances are grouped.
    """

    train: str = ""
    valid: str | None = None
    valid_batches: int = 16
    max_bad_fraction: float = 0.05
    batch: BatchConfig = field(default_factory=BatchConfig)

    def __post_init__(self) -> None:
        faults = []
        if not self.train:
            faults.append("train is missing, allowed: path of a manifest")
        if not 0 <= self.max_bad_fraction <= 1:
            faults.append(f"max_bad_fraction is {self.max_bad_fraction}, allowed: 0 to 1")
        if self.valid_batches < 1:
            faults.append(f"valid_batches is {self.valid_batches}, allowed: 1 or more")
        ConfigError.raise_for("data", faults)


def _stage2() -> TrainConfig:
    return TrainConfig(updates=25_000, warmup=5_000, lr=1e-4)


@dataclass(frozen=True)
class CompressConfig:
    """One compression run: joint distillation and pruning, then distillation of what is left.

    Either stage may be ``None``. Without stage 1 nothing is pruned: a ``student`` of a shape of
    its own is distilled, and gates and budget are not used. Without stage 2 the result is the
    model right after pruning.

    Args:
        teacher: name, path or Hub id, as for :func:`s3prl_dphubert.teachers.load_teacher`.
        data: where the audio is.
        seed: of everything random.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        gates: which units are gated.
        budget: what the pruned model may cost.
        cache_teacher: keep the teacher's targets on disk; needs ``data.batch.crops: fixed``.
        cache_gigabytes: that they may take.
        objective: what is distilled.
        student: the student's shape; ``None`` starts from a copy of the teacher.
        stage1: training with gates, then pruning.
        stage2: training of the pruned model or of the student.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    teacher: str
    data: DataConfig
    seed: int = 0
    device: str = "cpu"
    gates: GateConfig = field(default_factory=GateConfig)
    budget: Budget = field(default_factory=Budget)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    student: StudentConfig | None = None
    cache_teacher: bool = False
    cache_gigabytes: float = 100.0
    stage1: TrainConfig | None = field(default_factory=TrainConfig)
    stage2: TrainConfig | None = field(default_factory=_stage2)

    def __post_init__(self) -> None:
        faults = []
        if not DEVICE.fullmatch(self.device):
            faults.append(f"device is {self.device!r}, allowed: cpu, cuda, cuda:N")
        if self.seed < 0:
            faults.append(f"seed is {self.seed}, allowed: 0 or more")
        if self.cache_teacher and self.data.batch.crops != "fixed":
            faults.append(
                "cache_teacher is true and data.batch.crops is random, allowed: fixed; random crops are "
                "others in every epoch, and no target would be needed twice"
            )
        if not self.cache_gigabytes > 0:
            faults.append(f"cache_gigabytes is {self.cache_gigabytes}, allowed: more than 0")
        if self.stage1 is None and self.stage2 is None:
            faults.append("stage1 and stage2 are both null, allowed: at least one of them")
        if self.stage1 is None and self.student is None:
            faults.append("stage1 is null without a student, allowed: either of them makes the model smaller")
        ConfigError.raise_for("run", faults)
