"""Compression in the form in which s3prl's pretraining runner trains things.

Objective, gates, budget, micro-batches, random numbers and learning rates are those of ``compress``, so
that both make the same updates. The runner owns the loop: forward, backward, clipping, stepping, logs.
Random numbers are a function of seed, update and micro-batch, so ``Step`` is all that has to be known
of them to go on.
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
from ..compression.run_card import render_card
from ..data.batches import Batch
from ..data.dataset import read_data as read_audio
from ..distillation.student_init import init_student
from ..distillation.task import Distillation, JointPruning
from ..errors import ConfigError
from ..model import ModelConfig, SpeechModel
from ..model.speech_model import autocast
from ..training.nonfinite import report_skip
from ..training.train_config import TrainConfig
from ..training.trainer import seed_micro_batch
from ..utils.environment import changes, environment
from .epochs import Epochs
from .pretrain_config import PretrainRecipe, last_epoch, read_data, read_training
from .runner_checkpoint import Models, add_states, find_states
from .runner_optimizer import GuardedAdamW

log = logging.getLogger(__name__)
Records = dict[str, list[float]]


class UpstreamPretrainExpert(nn.Module):
    """What ``run_pretrain.py -u dphubert`` trains.

    Args:
        datarc: ``pretrain_expert.datarc`` of ``-c``: ``data`` of a run of ``compress``, and ``num_workers``.
        upstream_config: path of ``-g``, or what a checkpoint holds in its place.
        device: where to train.
        multi_gpu: has to be false.

    Raises:
        DPHubertError: a setting is wrong, or the teacher, stage 1 or the audio cannot be read.
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
                "--multi_gpu is given, allowed: none; for several GPUs use torchrun with compress"
            )
        self.device = torch.device(device)
        saved = upstream_config if isinstance(upstream_config, Mapping) else None
        self.recipe = PretrainRecipe.read(upstream_config if saved is None else saved["recipe"])
        data, self.num_workers = read_data(datarc)
        self.config = self.recipe.run(data)
        self.stream, _ = read_audio(data)
        self.epoch = len(self.stream.plan(0))
        datarc.setdefault("train_batch_size", math.ceil(len(self.stream.entries) / self.epoch))  # it is shown
        self.updates1: int | None = None
        self.task = self._task(saved)
        self.model = self.task.module  # what the runner optimises; the teacher stays outside, in eval mode
        self.settings = TrainConfig()
        self.step = self.update = self.micro = self.skipped = self.in_a_row = 0

    def _task(self, saved: Mapping[str, Any] | None) -> Distillation:
        """What is trained; the tensors of a checkpoint follow in :meth:`load_model`."""
        teacher = load_model(self.recipe.teacher).to(self.device)
        config, projections = self.config, None
        if saved is not None:
            model = SpeechModel(ModelConfig.from_dict(saved["shape"]))
            self.updates1 = saved["updates1"]
        elif self.recipe.stage1 is not None:
            before = read_states(find_states(Path(self.recipe.stage1)))
            if before.stage != 1:
                raise ConfigError(f"stage1: {before.source} is of stage 2, allowed: what stage 1 left")
            model, projections, self.updates1 = before.model(), before.projections, before.updates
        elif self.recipe.student is not None:
            model = init_student(teacher, self.recipe.student, config.seed)
        else:
            model = copy.deepcopy(teacher)
        if self.recipe.stage == 1:
            return stages.joint_pruning(config, teacher, model)
        return stages.distillation(config, teacher, model, projections)

    def prepare(self, config: Mapping[str, Any], folder: Path) -> None:
        """Take the whole of ``-c``, and where the experiment lies, before the training begins.

        Raises:
            ConfigError: listing everything that is wrong.
        """
        self.settings = read_training(config, self.epoch, self.num_workers)
        self.last_epoch = last_epoch(config["runner"], self.epoch)
        self.models = Models(folder)
        self.task.config = self.settings
        groups = self.task.parameter_groups()
        self.optimizer = GuardedAdamW(groups, self.settings.warmup, self.settings.updates)
        if self.step and (changed := changes(self.saved_environment, self.environment())):
            what = "goes on after update %d with %s; its numbers will not be those of an undisturbed run"
            log.warning(what, self.step, changed)

    def get_train_dataloader(self) -> Epochs:
        """The micro-batches from the next update on."""
        begin = self.step * self.settings.accumulate
        return Epochs(self.stream, begin, self.settings.num_workers, self.finished)

    def finished(self) -> bool:
        """Whether all updates have been made; then the last checkpoint gets the name it should have."""
        done = self.step >= self.settings.updates
        if done and (name := self.models.rename_last(self.last_epoch, self.step)):
            tqdm.write(f"[DPHuBERT] - The last checkpoint is named {name}, so that -e finds it")
        return done

    def forward(
        self, data: Batch, records: Records, global_step: int, log_step: int, **kwargs: Any
    ) -> tuple[Tensor, Records]:
        """Loss of one micro-batch, 0-d; its scalars are added to the records.

        Args:
            data: waveforms (B, T).
            records: scalars since the last log.
            global_step: the update, counted from 1.
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
        self.optimizer.finite &= bool(torch.isfinite(loss.detach()))
        for name, value in scalars.items():
            records[name].append(float(value))
        return loss, records

    def on_before_zero_grad(self) -> None:
        """Note that an update is over.

        Raises:
            RunError: too many in a row had a non-finite loss or gradient.
        """
        self.step, self.micro = self.update + 1, 0
        skipped = not self.optimizer.stepped
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        self.skipped += skipped
        if skipped:
            report_skip(self.update, self.in_a_row, self.settings.max_nonfinite)

    def log_records(self, records: Records, logger: Any, prefix: str, global_step: int) -> None:
        """Write the means since the last log to TensorBoard."""
        scalars = {name: sum(values) / len(values) for name, values in records.items()}
        scalars["skipped"] = self.skipped
        if self.recipe.stage == 1:
            scalars["gate-lr"] = self.optimizer.get_lr()[1]
        for name, value in scalars.items():
            logger.add_scalar(f"{prefix}{name}", value, global_step=global_step)

    def states(self) -> StudentStates:
        """All that is known of the student now."""
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
        """Add this recipe's part to a checkpoint, and write the model as it would be cut now beside it."""
        states = self.states()
        model = states.model()
        kind = "pruned" if self.recipe.stage == 1 else "compressed"
        self.models.write(self.step, model, render_card(self._described(), model, kind))
        add_states(
            all_states,
            self.recipe,
            states,
            environment=self.environment(),
            skipped=self.skipped,
            in_a_row=self.in_a_row,
        )
        return all_states

    def _described(self) -> Any:
        """The run with the updates that have been made."""
        settings = replace(self.settings, updates=self.step, warmup=0)
        made: dict[str, Any] = {f"stage{self.recipe.stage}": settings}
        if self.updates1 is not None:
            made["stage1"] = TrainConfig(updates=self.updates1, warmup=0)
        return replace(self.config, **made)

    def load_model(self, all_states: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        own = all_states[STUDENT]
        self.model.load_state_dict(own["module"])
        self.step, self.skipped, self.in_a_row = all_states["Step"], own["skipped"], own["in_a_row"]
        self.saved_environment = own["environment"]

    def environment(self) -> dict[str, str | int]:
        """What has to stay the same for a resumed run to be exact."""
        return environment(self.device, self.settings.precision, 1, self.settings.accumulate)
