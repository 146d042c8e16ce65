"""From a teacher and a folder of audio to a small checkpoint: stage 1, pruning, stage 2.

A run's directory holds all of its state, so that calling :func:`compress` again goes on
wherever it was::

    config.yaml           what was asked for
    stage1/, stage2/      checkpoints, log.jsonl, TensorBoard events
    pruned/               the model right after pruning
    projections.safetensors   the objective's projections, carried into stage 2
    model/                the result
    results.json          losses, cost and kept units
    training.png, units.png
"""

from __future__ import annotations

import copy
import fcntl
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from . import card, resources
from .checkpoint import load_model, read_pickle, read_tensors, save_model
from .config import CompressConfig, from_dict, read_yaml, to_dict
from .cost import macs, parameters
from .data.batches import Batch, BatchStream, validation_batches
from .data.manifest import Manifest, check_headers
from .distil import Distillation
from .errors import RunError
from .files import replacing
from .model import SpeechModel
from .objective import Objective
from .pruning import cut, final_masks
from .report import plot_training, plot_units
from .student import Student
from .trainer import Trainer

log = logging.getLogger(__name__)
SHIPPED = ("hubert_nano",)


def compress(config: CompressConfig | str | Path, out: str | Path) -> SpeechModel:
    """Compress a teacher; returns the small model, which also lies in ``out/model``.

    Args:
        config: the run's configuration, or the YAML file that holds it.
        out: directory of the run; new, or that of the same run, which then goes on.

    Raises:
        ConfigError: the configuration is wrong; all faults are listed.
        DataError: a manifest cannot be used, or too many of its files are bad.
        RunError: ``out`` belongs to another run, is in use, or training diverged.
    """
    out = Path(out)
    settings: CompressConfig = (
        config if isinstance(config, CompressConfig) else from_dict(CompressConfig, read_yaml(config))
    )
    _claim(settings, out)
    with _lock(out):
        _sweep(out)
        return _Run(settings, out).finish()


def resolve_teacher(name: str) -> SpeechModel:
    """Load a teacher by the name of one that ships, or from a path.

    Raises:
        CheckpointError: there is none.
    """
    return load_model(resources.find(f"assets/{name}") if name in SHIPPED else name)


class _Run:
    """The steps of one run; each leaves a file and is skipped when that file is there."""

    def __init__(self, config: CompressConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.teacher = resolve_teacher(config.teacher).to(config.device)

    @cached_property
    def data(self) -> tuple[BatchStream, list[Batch]]:
        """Training stream and validation batches; a finished run needs neither."""
        return read_data(self.config)

    def finish(self) -> SpeechModel:
        """Do what is left to do."""
        if not (self.out / "pruned").exists():
            self.stage1()
        if not (self.out / "model").exists():
            self.stage2()
        self.report()
        return load_model(self.out / "model")

    def distillation(self, student: Student | SpeechModel, stage: int) -> Distillation:
        """The task of one stage."""
        config, first = self.config, stage == 1
        settings = config.stage1 if first else config.stage2
        model = student.model if isinstance(student, Student) else student
        objective = Objective(
            config.objective,
            model.config.embed_dim,
            self.teacher.config.embed_dim,
            model.config.num_layers,
            self.teacher.config.num_layers,
        )
        return Distillation(
            self.teacher,
            student.to(config.device),
            objective.to(config.device),
            settings.lr,
            settings.gate_lr,
            config.budget if first else None,
            self.data[1],
        )

    def train(self, task: Distillation, stage: int) -> None:
        """Train one stage to its end."""
        settings = self.config.stage1 if stage == 1 else self.config.stage2
        seed = self.config.seed + stage
        folder = self.out / f"stage{stage}"
        Trainer(task, settings, self.data[0], folder, seed, self.config.device, f"stage{stage}").run()

    def stage1(self) -> None:
        """Train with gates, prune, and keep the model and the projections."""
        torch.manual_seed(self.config.seed)
        student = Student(copy.deepcopy(self.teacher).requires_grad_(True), self.config.gates)
        student.model.feature_extractor.dummy_weight.requires_grad_(False)
        task = self.distillation(student, 1)
        self.note("teacher_copy", task.evaluate())
        self.train(task, 1)
        student.eval()
        masks = final_masks(student, self.config.budget, task.full_costs)
        self.note("stage1", task.evaluate(masks))
        projections = {name: t.detach().cpu() for name, t in task.objective.state_dict().items()}
        with replacing(self.out / "projections.safetensors") as partial:
            save_file(projections, partial)
        pruned = cut(student.model, masks)
        save_model(pruned, self.out / "pruned", card.render(self.config, pruned, "pruned"))

    def stage2(self) -> None:
        """Train the pruned model and save the best weights seen on validation, or the last."""
        model = load_model(self.out / "pruned")
        task = self.distillation(model, 2)
        task.objective.load_state_dict(read_tensors(self.out / "projections.safetensors"))
        self.note("pruned", task.evaluate())
        self.train(task, 2)
        best = self.out / "stage2" / "best.pt"
        if best.exists():
            task.module.load_state_dict(read_pickle(best)["module"])
        self.note("stage2", task.evaluate())
        save_model(model.eval(), self.out / "model", card.render(self.config, model, "compressed"))

    def note(self, name: str, scalars: dict[str, float]) -> None:
        """Add validation losses to results.json; the first value of a name stays."""
        path = self.out / "results.json"
        results = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
        results.setdefault("valid", {}).setdefault(name, scalars)
        _write_json(path, results)

    def report(self) -> None:
        """Complete results.json and draw the plots."""
        path = self.out / "results.json"
        results = json.loads(path.read_text(encoding="utf8"))
        small, samples = load_model(self.out / "model").config, round(self.config.budget.seconds * 16_000)
        for name, shape in (("teacher", self.teacher.config), ("model", small)):
            cost = {"parameters": parameters(shape), "macs": macs(shape, samples)}
            kept = {"conv": shape.conv_channels, "heads": shape.heads, "ffn": shape.ffn}
            results[name] = cost | {key: list(value) for key, value in kept.items()}
        results["macs_seconds"] = self.config.budget.seconds
        _write_json(path, results)
        plot_training(self.out, self.out / "training.png")
        plot_units(self.teacher.config, small, self.out / "units.png")


def read_data(config: CompressConfig) -> tuple[BatchStream, list[Batch]]:
    """Check the manifests and return the training stream and the validation batches."""
    data = config.data
    manifest = Manifest.load(data.train)
    for bad in check_headers(manifest, data.max_bad_fraction):
        log.warning("%s: skipped, %s", bad.path, bad.reason)
    stream = BatchStream(manifest, data.batch)
    if data.valid is None:
        return stream, []
    valid = Manifest.load(data.valid)
    check_headers(valid, data.max_bad_fraction)
    return stream, list(validation_batches(valid, data.batch, data.valid_batches))


def _claim(config: CompressConfig, out: Path) -> None:
    """Make the run's directory, or check that it belongs to the same configuration."""
    path, wanted = out / "config.yaml", to_dict(config)
    if path.exists():
        found = read_yaml(path)
        differing = sorted(_differences(found, wanted))
        if differing:
            raise RunError(f"{out}: belongs to another run, which differs in {', '.join(differing)}")
        return
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out}: is not empty and holds no run; choose another place")
    out.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf8")


def _differences(a: Any, b: Any, path: str = "") -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    elif a != b:
        yield path


def _sweep(out: Path) -> None:
    """Remove what a killed process had half written."""
    for leftover in list(out.rglob("*.part")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold the run for one process; the lock goes when the process ends, however it ends."""
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{out}: another process is running it") from error
        yield


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")
