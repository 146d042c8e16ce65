"""From a teacher and a folder of audio to a small checkpoint: stage 1, pruning, stage 2.

A run's directory holds all of its state, so that calling :func:`compress` again goes on
wherever it was::

    config.yaml           what was asked for
    student/              what is trained, where that is no copy of the teacher
    stage1/, stage2/      checkpoints, log.jsonl, TensorBoard events
    targets/              the teacher's targets, where ``cache_teacher`` keeps them
    pruned/               the model right after pruning
    projections.safetensors   the objective's projections, carried into stage 2
    model/                the result
    results.json          losses, cost and kept units
    training.png, units.png

Under ``torchrun`` every process calls it alike. Process 0 alone writes; the others read from the
directory what they need of its work, so all of them have to see it.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..checkpoints.directory import read_tensors, save_model
from ..checkpoints.load import load_model
from ..constants import SAMPLE_RATE
from ..data.batches import Batch, BatchStream
from ..data.dataset import read_data
from ..distillation.student_init import StudentConfig, start
from ..distillation.target_cache import TargetCache
from ..distillation.task import Distillation
from ..model import SpeechModel
from ..model.cost import macs, parameters
from ..model.masks import NO_MASKS, Masks
from ..model.state_dict import load_weights_only
from ..pruning.structured import cut
from ..training.distributed import Processes, join
from ..training.train_config import TrainConfig
from ..training.trainer import Trainer
from ..utils.config_io import from_dict, read_yaml
from ..utils.files import replacing, write_text
from . import run_card, stages
from .compress_config import CompressConfig
from .run_directory import owning

log = logging.getLogger(__name__)


def compress(config: CompressConfig | str | Path, out: str | Path) -> SpeechModel:
    """Compress a teacher; returns the small model, which also lies in ``out/model``.

    Args:
        config: the run's configuration, or the YAML file that holds it.
        out: directory of the run; new, or that of the same run, which then goes on.

    Raises:
        ConfigError: the configuration is wrong; all faults are listed.
        DataError: a manifest cannot be used, or too many of its files are bad.
        CheckpointError: there is no such teacher, or it cannot be fetched or read.
        RunError: ``out`` belongs to another run or is in use, training diverged, or another
            process of the run was lost.
    """
    out = Path(out)
    settings: CompressConfig = (
        config if isinstance(config, CompressConfig) else from_dict(CompressConfig, read_yaml(config))
    )
    with (
        join(settings.device) as processes,
        owning(settings, out) if processes.main else nullcontext(),
    ):
        return _Run(settings, out, processes).finish()


class _Run:
    """The steps of one run; each leaves a file and is skipped when that file is there."""

    def __init__(self, config: CompressConfig, out: Path, processes: Processes) -> None:
        self.config, self.out, self.processes = config, out, processes
        if not processes.main:
            processes.wait()  # process 0 owns the directory by then, and a teacher from afar is at hand
        self.teacher = load_model(config.teacher).to(processes.device)
        if processes.main:
            processes.wait()

    @cached_property
    def data(self) -> tuple[BatchStream, list[Batch]]:
        """Training stream and validation batches; a finished run needs neither."""
        return read_data(self.config.data, self.processes.main)

    def finish(self) -> SpeechModel:
        """Do what is left to do."""
        config = self.config
        if config.student is not None:
            self.step("student", partial(self.begin, config.student))
        if config.stage1 is not None:
            self.step("pruned", partial(self.prune, config.stage1))
        self.step("model", self.distil)
        if self.processes.main:
            self.report()
        self.processes.wait()
        return load_model(self.out / "model")

    def step(self, result: str, work: Callable[[], None]) -> None:
        """Do a step in all processes, unless process 0 finds its result there."""
        if not self.processes.share((self.out / result).exists()):
            work()
            self.processes.wait()

    def begin(self, wanted: StudentConfig) -> None:
        """Keep a student that is no copy of the teacher."""
        if self.processes.main:
            student = start(self.teacher, wanted, self.config.seed)
            save_model(student, self.out / "student", run_card.render(self.config, student, "student"))

    def prune(self, settings: TrainConfig) -> None:
        """Stage 1: train with gates, prune, and keep the model and the projections."""
        config = self.config
        own = config.student is not None
        model = load_model(self.out / "student") if own else copy.deepcopy(self.teacher)
        task = stages.joint_pruning(config, self.teacher, model, self.data[1])
        self.note("student" if own else "teacher_copy", task)
        self.train(task, settings, 1)
        if not self.processes.main:
            return
        masks = task.final_masks()
        self.note("stage1", task, masks)
        projections = {name: t.detach().cpu() for name, t in task.objective.state_dict().items()}
        with replacing(self.out / "projections.safetensors") as path:
            save_file(projections, path)
        pruned = cut(task.model.eval(), masks)
        save_model(pruned, self.out / "pruned", run_card.render(config, pruned, "pruned"))

    def distil(self) -> None:
        """Stage 2: train the pruned model, or the student, and keep its best weights.

        They are the best seen on validation, or the last.
        """
        config = self.config
        source = "student" if config.stage1 is None else "pruned"
        model = load_model(self.out / source)
        own = config.stage1 is None
        projections = None if own else read_tensors(self.out / "projections.safetensors")
        task = stages.distillation(config, self.teacher, model, projections, self.data[1])
        self.note(source, task)
        if config.stage2 is not None:
            self.train(task, config.stage2, 2)
        if not self.processes.main:
            return
        if config.stage2 is not None:
            best = self.out / "stage2" / "best.pt"
            if best.exists():
                task.module.load_state_dict(load_weights_only(best)["module"])
            self.note("stage2", task)
        state = "pruned" if config.stage2 is None else "compressed"
        save_model(model.eval(), self.out / "model", run_card.render(config, model, state))

    def train(self, task: Distillation, settings: TrainConfig, stage: int) -> None:
        """Train one stage to its end."""
        name, seed = f"stage{stage}", self.config.seed + stage
        if self.config.cache_teacher:
            layers, width = task.objective.config.layers, self.teacher.config.embed_dim
            task.cache = TargetCache(self.out / "targets", layers, width, self.config.cache_gigabytes)
        Trainer(task, settings, self.data[0], self.out / name, seed, name, self.processes).run()

    def note(self, name: str, task: Distillation, masks: Masks = NO_MASKS) -> None:
        """Add validation losses to results.json; the first value of a name stays."""
        path = self.out / "results.json"
        if self.processes.main:
            results = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
            if name not in results.setdefault("valid", {}):
                results["valid"][name] = task.evaluate(masks)
                _write_json(path, results)

    def report(self) -> None:
        """Complete results.json and draw the plots."""
        path = self.out / "results.json"
        results = json.loads(path.read_text(encoding="utf8"))
        small, samples = (
            load_model(self.out / "model").config,
            round(self.config.budget.seconds * SAMPLE_RATE),
        )
        for name, shape in (("teacher", self.teacher.config), ("model", small)):
            cost = {"parameters": parameters(shape), "macs": macs(shape, samples)}
            kept = {"conv": shape.conv_channels, "heads": shape.heads, "ffn": shape.ffn}
            results[name] = cost | {key: list(value) for key, value in kept.items()}
        results["macs_seconds"] = self.config.budget.seconds
        _write_json(path, results)
        from .run_plots import plot_training, plot_units

        plot_training(self.out, self.out / "training.png")
        plot_units(self.teacher.config, small, self.out / "units.png")


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
