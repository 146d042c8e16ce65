"""Steps of a compression run, each of which leaves a file in the run's directory."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..checkpoints.directory import read_tensors, save_model
from ..checkpoints.load import load_model
from ..constants import SAMPLE_RATE
from ..data.batches import Batch, BatchStream
from ..data.dataset import read_data
from ..distillation.student_init import init_student
from ..distillation.target_cache import TargetCache
from ..distillation.task import Distillation, JointPruning
from ..model import ModelConfig, SpeechModel
from ..model.cost import macs, parameters
from ..model.inference.precision_choice import AUTO, resolve
from ..model.masks import NO_MASKS, Masks
from ..pruning.structured import cut
from ..training.best_checkpoints import BEST, load_best
from ..training.distributed import Processes
from ..training.train_config import TrainConfig
from ..training.trainer import Trainer
from ..utils.environment import processor
from ..utils.files import replacing, write_text
from ..utils.readers import read_record, section
from . import stages
from .compress_config import CompressConfig
from .run_card import render_card
from .run_directory import CONFIG, pin_inputs, removable


class CompressionRun:
    """Run of one size; a step is skipped if its file exists.

    Args:
        config: the run.
        out: its directory, which process 0 has locked.
        processes: all processes of the run.
    """

    def __init__(self, config: CompressConfig, out: Path, processes: Processes) -> None:
        self.config, self.out, self.processes = config, out, processes
        self.targets = out / "targets"  # cache of the teacher's hidden states
        if not processes.main:
            processes.barrier()  # until process 0 has locked the directory and downloaded the teacher
        self.teacher = load_model(config.teacher).to(processes.device)
        if processes.main:
            pin_inputs(config, self.teacher, out)
            processes.barrier()

    @cached_property
    def data(self) -> tuple[BatchStream, list[Batch]]:
        """Training stream and validation batches, read on first use: a finished run needs neither."""
        return read_data(self.config.data, self.processes.main)

    def finish(self) -> SpeechModel:
        """Run the remaining steps, and return the result."""
        if self.config.student is not None:
            self.step("student", self.initialize)
        if self.config.stage1 is not None:
            self.step("pruned", self.prune)
        self.step("model", self.distill)
        if self.processes.main:
            self.report()
        self.processes.barrier()
        return self.load("model")

    def step(self, result: str, work: Callable[[], None]) -> None:
        """Do the work in all processes, unless process 0 finds its result."""
        if not self.processes.broadcast((self.out / result).exists()):
            work()
            self.processes.barrier()

    def load(self, name: str) -> SpeechModel:
        """Load a model of this run."""
        with removable(self.out / name, "it is made anew from the last checkpoint before it"):
            return load_model(self.out / name)

    def initialize(self) -> None:
        """Save a student whose shape is not the teacher's."""
        if self.processes.main and self.config.student is not None:
            self.save(init_student(self.teacher, self.config.student, self.config.seed), "student", "student")

    def prune(self) -> None:
        """Run stage 1, prune, and save the model and the projections."""
        task = self.joint_pruning()
        self.record_validation("student" if self.config.student else "teacher_copy", task)
        self.train(task, 1)
        self.cut(task)

    def joint_pruning(self) -> JointPruning:
        """Build stage 1 from its start."""
        student = copy.deepcopy(self.teacher) if self.config.student is None else self.load("student")
        config = self.with_precision("stage1", student.config)
        return stages.joint_pruning(config, self.teacher, student, self.data[1])

    def with_precision(self, stage: str, student: ModelConfig) -> CompressConfig:
        """Return the configuration with what ``auto`` stands for in a stage, alike in all processes.

        The teacher computes no gradients, and so has a choice of its own.
        """
        train: TrainConfig | None = getattr(self.config, stage)
        if train is None or AUTO not in (train.precision, train.teacher_precision):
            return self.config
        chosen = None
        if self.processes.main:
            device = self.processes.device
            precision = resolve(train.precision, student, device, training=True)
            teacher = train.teacher_precision
            if teacher == AUTO or (teacher is None and train.precision == AUTO):
                teacher = resolve(AUTO, self.teacher.config, device)
            chosen = precision, None if teacher == precision else teacher
        precision, teacher = self.processes.broadcast(chosen)
        train = replace(train, precision=precision, teacher_precision=teacher)
        if stage == "stage1":
            return replace(self.config, stage1=train)
        return replace(self.config, stage2=train)

    def cut(self, task: JointPruning) -> None:
        """Prune a student that has been trained, and save the model and the projections."""
        task.check_sparsity()
        if not self.processes.main:
            return
        self.record_sparsity(task)
        masks = task.final_masks()
        self.record_validation("stage1", task, masks)
        projections = {name: t.detach().cpu() for name, t in task.objective.state_dict().items()}
        with replacing(self.out / "projections.safetensors") as path:
            save_file(projections, path)
            path.chmod((self.out / CONFIG).stat().st_mode)  # safetensors writes 0600
        self.save(cut(task.model.eval(), masks), "pruned", "pruned")

    def distill(self) -> None:
        """Run stage 2, if there is one, and save the weights that validated best, their mean or the last."""
        after_pruning = self.config.stage1 is not None
        source = "pruned" if after_pruning else "student"
        student = self.load(source)
        with removable(self.out / "pruned", "it and the projections are made anew from stage 1"):
            projections = read_tensors(self.out / "projections.safetensors") if after_pruning else None
        config = self.with_precision("stage2", student.config)
        task = stages.distillation(config, self.teacher, student, projections, self.data[1])
        self.record_validation(source, task)
        if self.config.stage2 is None:
            if self.processes.main:
                self.save(student.eval(), "model", "pruned")
            return
        self.train(task, 2)
        if self.processes.main:
            folder = self.out / "stage2"
            with removable(folder / BEST, "the last weights are taken"):
                best = load_best(folder, self.config.stage2.average_best)
                if best is not None:
                    task.module.load_state_dict(best)
            self.record_validation("stage2", task)
            self.save(student.eval(), "model", "compressed")

    def train(self, task: Distillation, stage: int, milestones: frozenset[int] = frozenset()) -> None:
        """Train one stage to its end; checkpoints of the milestones are kept."""
        name, seed = f"stage{stage}", self.config.seed + stage
        if self.config.cache_teacher:
            layers, width = task.objective.config.target_layers, self.teacher.config.embed_dim
            task.cache = TargetCache(
                self.targets, layers, width, self.config.cache_gigabytes, self.processes.device
            )
        folder = self.out / name
        trainer = Trainer(task, task.config, self.data[0], folder, seed, name, self.processes, milestones)
        self.record("environment", name, {"processor": processor(), **trainer.environment()})
        trainer.run()

    def save(self, model: SpeechModel, name: str, state: str) -> None:
        """Save a model with its card."""
        save_model(model, self.out / name, render_card(self.config, model, state, self.teacher.config))

    def record_validation(self, name: str, task: Distillation, masks: Masks = NO_MASKS) -> None:
        """Add validation losses to results.json, unless an earlier start has recorded them."""
        if self.processes.main and name not in section(read_record(self.out / "results.json"), "valid"):
            self.record("valid", name, task.evaluate(masks))

    def record(self, part: str, name: str, values: Mapping[str, Any]) -> None:
        """Set an entry of a part of results.json, in process 0."""
        if self.processes.main:
            path = self.out / "results.json"
            results = read_record(path)
            _write_json(path, results | {part: {**section(results, part), name: values}})

    def record_sparsity(self, task: JointPruning) -> None:
        """Add target and expected sparsity at the end of stage 1 to results.json."""
        path, targets = self.out / "results.json", task.budget.shares
        rows = {
            count: {"target": targets[count], "expected": float(expected.detach())}
            for count, expected in task.sparsity().items()
        }
        _write_json(path, read_record(path) | {"sparsity": rows})

    def report(self) -> None:
        """Complete results.json and draw the plots."""
        from .run_plots import plot_training, plot_units  # matplotlib takes half a second to import

        path, seconds = self.out / "results.json", self.config.budget.seconds
        results = {"valid": {}, **read_record(path)}
        small = self.load("model").config
        for name, shape in (("teacher", self.teacher.config), ("model", small)):
            results[name] = {
                "parameters": parameters(shape),
                "macs": macs(shape, round(seconds * SAMPLE_RATE)),
                "conv": list(shape.conv_channels),
                "heads": list(shape.heads),
                "ffn": list(shape.ffn),
            }
        results["macs_seconds"] = seconds
        _write_json(path, results)
        plot_training(self.out, self.out / "training.png")
        plot_units(self.teacher.config, small, self.out / "units.png")


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
