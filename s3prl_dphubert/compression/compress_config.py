"""Configurations of a compression run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..data.dataset import DataConfig
from ..distillation.objective import ObjectiveConfig
from ..distillation.student_init import StudentConfig
from ..errors import ConfigError
from ..pruning.budget import Budget
from ..pruning.gates import GateConfig
from ..training.train_config import TrainConfig

DEVICE = re.compile(r"cpu|cuda(:\d+)?")


def _stage2() -> TrainConfig:
    return TrainConfig(updates=25_000, warmup=5_000, lr=1e-4)


@dataclass(frozen=True)
class CompressConfig:
    """One compression run: joint distillation and pruning, then distillation of what is left.

    Either stage may be ``None``. Without stage 1 nothing is pruned: a ``student`` of a shape of
    its own is distilled, and gates and budget are not used. Without stage 2 the result is the
    model right after pruning.

    Args:
        teacher: name, path or Hub id, as for :func:`s3prl_dphubert.load_model`.
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
