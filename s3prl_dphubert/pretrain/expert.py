"""Compression as an upstream of s3prl's pretraining runner.

Objective, gates, budget, micro-batches, random numbers and learning rates are those of ``compress``, so
that both make the same updates. The runner owns the loop: forward, backward, clipping, stepping, logging.
Random numbers are a function of seed, update and micro-batch, so that ``Step`` suffices to resume them.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoints.load import load_model
from ..checkpoints.s3prl_states import STUDENT, StudentStates, read_states
from ..compression import stages
from ..compression.compress_config import CompressConfig
from ..compression.run_card import render_card
from ..data.batches import Batch
from ..data.dataset import read_data
from ..distillation.student_init import init_student
from ..distillation.task import Distillation, JointPruning
from ..errors import ConfigError
from ..model import ModelConfig, SpeechModel
from ..model.speech_model import autocast
from ..training.nonfinite import report_skip
from ..training.train_config import TrainConfig
from ..training.trainer import seed_micro_batch
from ..utils.environment import changes, environment
from .pretrain_config import PretrainRecipe, RunnerConfig, RunnerData
from .runner_adapters import EpochLoader, GuardedAdamW
from .runner_checkpoint import Models, add_states, find_states

log = logging.getLogger(__name__)
Records = dict[str, list[Any]]
"""Name -> numbers, or 0-d tensors on the device."""


class UpstreamPretrainExpert(nn.Module):
    """Upstream that ``run_pretrain.py -u dphubert`` trains.

    Args:
        datarc: ``pretrain_expert.datarc`` of ``-c``: ``data`` of a run of ``compress``, and ``num_workers``.
        upstream_config: path of ``-g``, or the values of it in a checkpoint.
        device: device to train on.
        multi_gpu: must be false.

    Raises:
        DPHubertError: a field is wrong, or the teacher, stage 1 or the audio cannot be read.
    """

    def __init__(
        self,
        datarc: dict[str, Any],
        upstream_config: str | Path | Mapping[str, Any],
        device: str = "cuda",
        multi_gpu: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if multi_gpu:
            raise ConfigError(
                "--multi_gpu is given, which is not supported; for several GPUs use compress under torchrun"
            )
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"--device is {device!r}, and torch sees no GPU here; allowed: cpu")
        saved = upstream_config if isinstance(upstream_config, Mapping) else None
        self.recipe = PretrainRecipe.read(upstream_config if saved is None else saved["recipe"])
        data = RunnerData.read(datarc)
        self.num_workers = data.num_workers
        self.config = self.recipe.run(data)
        self.stream, _ = read_data(data)
        self.epoch = len(self.stream.plan(0))
        # s3prl prints it.
        datarc.setdefault("train_batch_size", math.ceil(len(self.stream.lengths) / self.epoch))
        self.updates1: int | None = None  # made in stage 1, if this is stage 2
        self.task = self._task(saved)
        self.model = self.task.module  # optimized by the runner; the teacher stays outside, in eval mode
        self.settings = TrainConfig()
        self.step = self.update = self.micro = self.skipped = self.in_a_row = 0

    def _task(self, saved: Mapping[str, Any] | None) -> Distillation:
        """Build the training task; the tensors of a checkpoint follow in :meth:`load_model`."""
        teacher = load_model(self.recipe.teacher).to(self.device)
        config, projections = self.config, None
        if saved is not None:
            model = SpeechModel(ModelConfig.from_dict(saved["shape"]))
            self.updates1 = saved["updates1"]
        elif self.recipe.stage1 is not None:
            before = read_states(find_states(Path(self.recipe.stage1)))
            if before.stage != 1:
                raise ConfigError(f"stage1: {before.source} is of stage 2, allowed: a checkpoint of stage 1")
            budget = replace(before.budget, tolerance=self.recipe.budget.tolerance)
            before.gated_model().check_sparsity(budget, before.full_costs)
            model, projections, self.updates1 = before.model(), before.projections, before.updates
        elif self.recipe.student is not None:
            model = init_student(teacher, self.recipe.student, config.seed)
        else:
            model = copy.deepcopy(teacher)
        if self.recipe.stage == 1:
            return stages.joint_pruning(config, teacher, model)
        return stages.distillation(config, teacher, model, projections)

    def prepare(self, config: Mapping[str, Any], folder: Path) -> None:
        """Read the training settings before the training begins.

        Args:
            config: the whole of ``-c``.
            folder: directory of the experiment.

        Raises:
            ConfigError: listing every field that is wrong.
        """
        runner_config = RunnerConfig.read(config, self.epoch, self.num_workers)
        self.settings, self.last_epoch = runner_config.training(), runner_config.last_epoch
        warmup, updates = self.recipe.budget.warmup, self.settings.updates
        if self.recipe.stage == 1 and warmup > updates:
            raise ConfigError(f"budget.warmup is {warmup}, allowed: 0 to the {updates} steps of the runner")
        self.models = Models(folder)
        self.task.config = self.settings
        groups = self.task.parameter_groups()
        self.optimizer = GuardedAdamW(groups, self.settings.warmup, self.settings.updates)
        if self.step and (changed := changes(self.saved_environment, self.environment())):
            message = "goes on after update %d with %s; its numbers will not be those of an undisturbed run"
            log.warning(message, self.step, changed)

    def get_train_dataloader(self) -> EpochLoader:
        """Return the micro-batches from the next update on."""
        start = self.step * self.settings.accumulate
        return EpochLoader(self.stream, start, self.settings.num_workers, self.is_finished)

    def is_finished(self) -> bool:
        """Return whether all updates have been made, after correcting the last checkpoint's name if so."""
        finished = self.step >= self.settings.updates
        if finished and (name := self.models.rename_last(self.last_epoch, self.step)):
            tqdm.write(f"[DPHuBERT] - The last checkpoint is named {name}, so that -e finds it")
        return finished

    def forward(
        self, data: Batch, records: Records, global_step: int, log_step: int, **kwargs: Any
    ) -> tuple[Tensor, Records]:
        """Compute the loss of one micro-batch, 0-d, and add its scalars to the records.

        Args:
            data: waveforms (B, T).
            records: scalars since the last log; changed in place.
            global_step: number of the update, from 1.
            log_step: updates between logs.
        """
        if self.micro == 0:
            self.update = global_step - 1
            self.optimizer.schedule(self.update)
        generator = seed_micro_batch(self.config.seed + self.recipe.stage, self.update, self.micro)
        self.micro += 1
        precision = self.settings.precision  # in fp16 the runner has switched autocast on
        with nullcontext() if precision == "fp16" else autocast(self.device, precision):
            loss, scalars = self.task.step(data.to(self.device), self.update, generator)
        self.optimizer.loss_is_finite &= torch.isfinite(
            loss.detach()
        )  # read once an update, as records when logged
        for name, value in scalars.items():
            records[name].append(value)
        return loss, records

    def on_before_zero_grad(self) -> None:
        """Count the update that is over.

        Raises:
            RunError: too many in a row had a non-finite loss or gradient.
        """
        self.task.after_update(self.update)
        self.step, self.micro = self.update + 1, 0
        skipped = not self.optimizer.stepped
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        self.skipped += skipped
        if skipped:
            report_skip(self.update, self.in_a_row, self.settings.max_nonfinite)

    def log_records(self, records: Records, logger: Any, prefix: str, global_step: int) -> None:
        """Write the means since the last log to TensorBoard."""
        scalars = {name: sum(map(float, values)) / len(values) for name, values in records.items()}
        scalars["skipped"] = self.skipped
        if self.recipe.stage == 1:
            scalars["gate-lr"] = self.optimizer.get_lr()[1]
        for name, value in scalars.items():
            logger.add_scalar(f"{prefix}{name}", value, global_step=global_step)

    def states(self) -> StudentStates:
        """Return the student in training."""
        shape, module = self.task.model.config, self.model.state_dict()
        full_costs = self.task.full_costs if isinstance(self.task, JointPruning) else {}
        return StudentStates(
            self.recipe.stage,
            self.recipe.gates,
            self.recipe.budget,
            shape,
            module,
            full_costs,
            self.step,
            self.updates1,
        )

    def add_state_to_save(self, all_states: dict[str, Any]) -> dict[str, Any]:
        """Add this recipe's part to a checkpoint, and save the model as it would be pruned now beside it."""
        states = self.states()
        model = states.model()
        kind = "pruned" if self.recipe.stage == 1 else "compressed"
        self.models.write(self.step, model, render_card(self._run_so_far(), model, kind))
        add_states(
            all_states,
            self.recipe,
            states,
            environment=self.environment(),
            skipped=self.skipped,
            in_a_row=self.in_a_row,
        )
        return all_states

    def _run_so_far(self) -> CompressConfig:
        """Return the run with the numbers of updates made so far, for the model card."""
        train = replace(self.settings, updates=self.step, warmup=0)
        changes: dict[str, Any] = {f"stage{self.recipe.stage}": train}
        changes["budget"] = replace(self.config.budget, warmup=0)  # may be longer than the updates so far
        if self.updates1 is not None:
            changes["stage1"] = TrainConfig(updates=self.updates1, warmup=0)
        return replace(self.config, **changes)

    def load_model(self, all_states: dict[str, Any]) -> None:
        """Resume from a checkpoint."""
        own = all_states[STUDENT]
        self.model.load_state_dict(own["module"])
        self.step, self.skipped, self.in_a_row = all_states["Step"], own["skipped"], own["in_a_row"]
        self.saved_environment = own["environment"]

    def environment(self) -> dict[str, str | int]:
        """Return the facts that must not change for a resumed run to be exact."""
        return environment(self.device, self.settings.precision, 1, self.settings.accumulate)
