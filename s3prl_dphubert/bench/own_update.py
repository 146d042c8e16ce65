"""One update of stage 1 as the trainer makes it, with the times of its parts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..compression import stages
from ..compression.compress_config import CompressConfig
from ..data.batches import Batch
from ..data.dataset import DataConfig
from ..distillation.objective import ObjectiveConfig
from ..distillation.task import JointPruning
from ..model import SpeechModel
from ..model.speech_model import autocast
from ..pruning.budget import Budget
from ..training.optimizer import ScheduledAdamW
from ..training.train_config import TrainConfig
from ..utils.stopwatch import Stopwatch
from .reference_update import matched


class TimedPruning(JointPruning):
    """Stage 1 with a stopwatch on the teacher."""

    watch = Stopwatch()

    @torch.no_grad()
    def targets(self, waveforms: Tensor) -> list[Tensor]:
        """Compute the teacher's hidden states (B, F, D) of waveforms (B, T), timed as ``teacher``."""
        with self.watch("teacher"):
            return super().targets(waveforms)


class OwnUpdate:
    """Joint distillation and pruning: one loss, one backward pass, one step.

    Args:
        model: teacher, and initial student.
        precision: ``fp32`` or ``bf16``.
        rate: dropout probability of the student; by default that of its configuration.
        teacher_precision: as in :class:`.TrainConfig`.
        compiled: compile both on a GPU, as in :class:`.TrainConfig`.
    """

    def __init__(
        self,
        model: SpeechModel,
        precision: str = "fp32",
        rate: float | None = None,
        teacher_precision: str | None = None,
        compiled: bool = False,
    ) -> None:
        student = copy.deepcopy(model)
        if rate is not None:
            for module in student.modules():
                if isinstance(module, nn.Dropout):
                    module.p = rate
                elif hasattr(module, "attention_dropout"):
                    module.attention_dropout = rate  # type: ignore[assignment]
        first, *others = matched(model.config.num_layers)
        objective = ObjectiveConfig(groups=((first,), tuple(others)))
        stage1 = TrainConfig(precision=precision, teacher_precision=teacher_precision, compile=compiled)
        run = CompressConfig("", DataConfig("-"), objective=objective, budget=Budget(0.75), stage1=stage1)
        self.precision, self.step = precision, 0
        task = stages.joint_pruning(run, model, student)
        self.task = TimedPruning(task.teacher, task.student, task.objective, task.config, task.budget)
        self.task.module.train()
        groups = self.task.parameter_groups()
        self.optimizer = ScheduledAdamW(groups, warmup=0, updates=50_000)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.gates = self.task.student.gates

    def set_gates(self, log_alphas: dict[str, dict[int, Tensor]]) -> None:
        """Set log_alpha of the gates, by kind and layer."""
        for kind, index, gates in self.gates.items():
            gates.log_alpha.data.copy_(log_alphas[kind][index])

    def loss(self, waveforms: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Compute the loss of waveforms (B, T), and its distillation part."""
        lengths = torch.full((len(waveforms),), waveforms.shape[1])
        with autocast(waveforms.device, self.precision):
            generator = torch.Generator().manual_seed(seed)
            loss, scalars = self.task.step(Batch(waveforms, lengths, ()), 0, generator)
        return loss, torch.as_tensor(scalars["distillation"])

    def update(self, waveforms: Tensor, watch: Stopwatch) -> None:
        """Make one update."""
        self.task.watch = watch
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.schedule(self.step)
        self.step += 1
        with watch("student"):
            loss, _ = self.loss(waveforms, self.step)
        with watch("backward"):
            loss.backward()
        with watch("optimizer"):
            norm = nn.utils.clip_grad_norm_(self.parameters, 10.0)
            self.optimizer.step_unless(~torch.isfinite(norm))
        for times in (watch.wall, watch.cpu):
            times["forward"] = times.pop("student") - times["teacher"]
