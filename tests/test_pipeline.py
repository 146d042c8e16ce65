"""The pipeline: trains, prunes, distils, survives kills, refuses what it should."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from models import outputs, tiny
from speech import tone

from s3prl_dphubert import compress, load_model, save_model
from s3prl_dphubert.budget import Budget
from s3prl_dphubert.checkpoint import read_pickle
from s3prl_dphubert.config import CompressConfig, TrainConfig, from_dict
from s3prl_dphubert.cost import parameters
from s3prl_dphubert.data.batches import BatchConfig, BatchStream
from s3prl_dphubert.data.manifest import scan, write
from s3prl_dphubert.distil import Distillation
from s3prl_dphubert.errors import DataError, RunError
from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.objective import Objective, ObjectiveConfig
from s3prl_dphubert.student import Student
from s3prl_dphubert.trainer import Trainer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny teacher, a manifest and the settings of a short run."""
    folder = tmp_path_factory.mktemp("place")
    for index in range(12):
        audio = folder / "audio" / f"{index:02d}.wav"
        audio.parent.mkdir(exist_ok=True)
        soundfile.write(audio, tone(0.4 + 0.05 * index, hertz=150 + 40 * index), 16_000)
    found, skipped = scan([folder / "audio"], splits={"valid": "*[05].wav"})
    write(folder / "x.tsv", found, skipped)
    save_model(tiny("hubert"), folder / "teacher")
    stage = {
        "updates": 12,
        "warmup": 3,
        "save_every": 2,
        "validate_every": 4,
        "log_every": 1,
        "num_workers": 0,
    }
    values = {
        "teacher": str(folder / "teacher"),
        "data": {
            "train": str(folder / "x.tsv"),
            "valid": str(folder / "x.valid.tsv"),
            "batch": {"seconds_per_batch": 3.0, "min_seconds": 0.3, "max_seconds": 1.0, "buckets": 3},
        },
        "budget": {"sparsity": 0.4, "warmup": 4, "seconds": 1.0},
        "objective": {"groups": [[0], [1, 3]]},
        "stage1": {**stage, "lr": 1e-3, "gate_lr": 0.2},
        "stage2": {**stage, "lr": 1e-3},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def config(place) -> CompressConfig:
    return from_dict(CompressConfig, yaml.safe_load((place / "run.yaml").read_text()))


@pytest.fixture(scope="module")
def finished(place, config):
    out = place / "finished"
    compress(config, out)
    return out


def test_a_run_ends_within_budget(finished, config, place):
    model, teacher = load_model(finished / "model"), load_model(place / "teacher")
    limit = 0.6 * parameters(teacher.config)
    assert 0.97 * limit <= parameters(model.config) <= limit
    results = json.loads((finished / "results.json").read_text())
    valid = {name: scalars["loss"] for name, scalars in results["valid"].items()}
    assert list(valid) == ["teacher_copy", "stage1", "pruned", "stage2"]
    assert valid["pruned"] == pytest.approx(valid["stage1"], abs=1e-4)
    assert valid["teacher_copy"] == pytest.approx(-1, abs=1e-5)
    assert valid["stage2"] < valid["pruned"]
    assert results["model"]["parameters"] == parameters(model.config)
    for name in ("training.png", "units.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    halfway = load_model(finished / "pruned").config
    assert f"{parameters(halfway):,}" in (finished / "pruned" / "README.md").read_text()
    card = (finished / "model" / "README.md").read_text()
    for part in (f"{parameters(model.config):,}", "sparsity 0.4", str(place / "teacher"), "| layer | heads"):
        assert part in card


def test_log_and_checkpoints(finished, config):
    for stage in ("stage1", "stage2"):
        rows = [json.loads(row) for row in (finished / stage / "log.jsonl").read_text().splitlines()]
        assert [row["update"] for row in rows] == list(range(1, 13))
        assert len(list((finished / stage).glob("state-*.pt"))) == config.stage1.keep
        assert any(finished.joinpath(stage).glob("events.out.tfevents.*"))
        best = min(row["valid_loss"] for row in rows if "valid_loss" in row)
        assert read_pickle(finished / stage / "best.pt")["loss"] == pytest.approx(best)
    rows = [json.loads(row) for row in (finished / "stage1" / "log.jsonl").read_text().splitlines()]
    assert [round(row["target_sparsity"], 6) for row in rows[:5]] == [0, 0.1, 0.2, 0.3, 0.4]


def test_a_finished_run_is_only_loaded(finished, config):
    before = (finished / "model" / "model.safetensors").stat().st_mtime_ns
    compress(config, finished)
    assert (finished / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_another_run_is_not_overwritten(finished, config, tmp_path):
    with pytest.raises(RunError, match=r"differs in budget\.sparsity\.parameters, seed"):
        compress(replace(config, seed=9, budget=Budget(0.3, warmup=4, seconds=1.0)), finished)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        compress(config, tmp_path)


KILLER = """
import os, signal, sys
from s3prl_dphubert import checkpoint, trainer
from s3prl_dphubert.cli import main

real, countdown = os.replace, [int(sys.argv[2])]

def replace(source, target):
    real(source, target) if sys.argv[3] == "after" else None
    if sys.argv[1] in str(target):
        countdown[0] -= 1
        if countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    real(source, target) if sys.argv[3] == "before" else None

os.replace = replace
sys.exit(main(sys.argv[4:]))
"""

MOMENTS = [
    ("stage1/state-", "2", "after"),
    ("stage1/state-", "3", "before"),
    ("projections.safetensors", "1", "after"),
    ("pruned", "1", "before"),
    ("pruned", "1", "after"),
    ("stage2/state-", "2", "after"),
    ("model", "1", "before"),
]


def test_killed_runs_go_on_to_the_same_model(finished, place):
    """SIGKILL in stage 1, while pruning and in stage 2, one after another in one run."""
    out, command = place / "killed", ["compress", str(place / "run.yaml"), "--out", str(place / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for moment in MOMENTS:
        process = subprocess.run(
            [sys.executable, "-c", KILLER, *moment, *command], capture_output=True, text=True, env=environment
        )
        assert process.returncode == -signal.SIGKILL, process.stderr
    assert compress(place / "run.yaml", out).config == load_model(finished / "model").config
    for a, b in zip(outputs(load_model(finished / "model")), outputs(load_model(out / "model")), strict=True):
        assert torch.equal(a, b)
    assert not list(out.rglob("*.part"))


def test_too_many_bad_files_stop_the_start(config, place, tmp_path):
    lines = (place / "x.tsv").read_text().splitlines()
    (tmp_path / "bad.tsv").write_text(
        "\n".join([*lines, *(f"/nowhere/{i}.wav\t9000" for i in range(5))]) + "\n"
    )
    with pytest.raises(DataError, match=r"5 of \d+ files are bad"):
        compress(
            replace(config, data=replace(config.data, train=str(tmp_path / "bad.tsv"))), tmp_path / "out"
        )


def distillation(place, budget=None, **options):
    teacher = load_model(place / "teacher")
    student = load_model(place / "teacher")
    objective = Objective(ObjectiveConfig(groups=((0,), (1, 3))), 32, 32, 3, 3)
    student = Student(student) if budget else student
    return Distillation(teacher, student, objective, 1e-3, 0.2, budget, **options)


def stream_of(place, **options):
    found = scan([place / "audio"])[0][""]
    return BatchStream(found, BatchConfig(seconds_per_batch=3.0, min_seconds=0.3, max_seconds=1.0, **options))


def test_interrupted_training_equals_undisturbed(place, tmp_path):
    """Stop after 5 of 10 updates and go on: the same weights, gates and multipliers to the bit."""
    settings = TrainConfig(updates=10, warmup=3, save_every=5, num_workers=0, accumulate=2, precision="bf16")
    states = []
    for folder, stop in (("whole", None), ("halves", 5)):
        for _ in range(2 if stop else 1):
            torch.manual_seed(0)
            task = distillation(place, Budget(0.5, warmup=2))
            trainer = Trainer(task, settings, stream_of(place), tmp_path / folder)
            if stop and not trainer.states():
                trainer.after_step = partial(_stop_after, trainer.after_step, trainer, stop)
                with pytest.raises(KeyboardInterrupt):
                    trainer.run()
            else:
                trainer.run()
        states.append(task.module.state_dict())
    assert len(states[0]) == 85
    differing = [n for n in states[0] if not torch.equal(states[0][n], states[1][n])]
    assert differing == []


def _stop_after(after_step, trainer, update, *arguments):
    after_step(*arguments)
    if trainer.update == update:
        raise KeyboardInterrupt


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precisions_learn(place, tmp_path, precision):
    settings = TrainConfig(updates=8, warmup=2, lr=3e-3, precision=precision, log_every=1, num_workers=0)
    task = distillation(place, Budget(0.5, warmup=2))
    Trainer(task, settings, stream_of(place), tmp_path).run()
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert rows[-1]["sparsity"] > rows[0]["sparsity"]
    assert all(row["skipped"] <= 2 for row in rows)


def test_non_finite_losses_are_skipped_then_stop(place, tmp_path):
    task = distillation(place)
    before = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    real = task.step

    def broken(batch, update, generator):
        loss, scalars = real(batch, update, generator)
        return loss * float("nan"), scalars

    task.step = broken
    settings = TrainConfig(updates=8, warmup=2, max_nonfinite=3, num_workers=0)
    with pytest.raises(RunError, match="3 updates in a row"):
        Trainer(task, settings, stream_of(place), tmp_path).run()
    assert all(torch.equal(before[name], tensor) for name, tensor in task.module.state_dict().items())


def test_teacher_is_frozen_and_runs_only_as_deep_as_needed(place, monkeypatch):
    task = distillation(place)
    task.objective = Objective(ObjectiveConfig(groups=((0,), (2,))), 32, 32, 3, 3)
    seen = []
    real = SpeechModel.extract_features
    monkeypatch.setattr(
        SpeechModel,
        "extract_features",
        lambda self, *a, **k: seen.append((self is task.teacher, k.get("num_layers"))) or real(self, *a, **k),
    )
    loss, _ = task.step(stream_of(place)[0], 0, torch.Generator())
    loss.backward()
    assert (True, 2) in seen
    assert not task.teacher.training
    assert all(p.grad is None for p in task.teacher.parameters())


def test_two_updates_at_hubert_base_size(tmp_path):
    """Stage 1 at real size with random weights: 94,371,456 parameters, two updates."""
    torch.manual_seed(0)
    teacher = SpeechModel(ModelConfig()).eval()
    assert sum(p.numel() for p in teacher.parameters()) == 94_370_944 + 512
    student = SpeechModel(ModelConfig())
    student.load_state_dict(teacher.state_dict())
    folder = Path(tmp_path, "audio")
    folder.mkdir()
    soundfile.write(folder / "a.wav", tone(0.5), 16_000)
    stream = BatchStream(
        scan([folder])[0][""], BatchConfig(seconds_per_batch=1.0, min_seconds=0.3, max_seconds=1.0)
    )
    objective = Objective(ObjectiveConfig(), 768, 768, 12, 12)
    budget = Budget(0.75, warmup=2)
    task = Distillation(teacher, Student(student), objective, 1e-4, 0.02, budget)
    task.parameter_groups()
    trainer = Trainer(
        task, TrainConfig(updates=2, warmup=1, num_workers=0, save_every=9), stream, tmp_path / "run"
    )
    trainer.save = lambda: None  # 1 GB of optimizer state is not the point here
    trainer.run()
    rows = [json.loads(row) for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["update"] == 2
    assert rows[-1]["skipped"] == 0
    assert -1 < rows[-1]["distillation"] < 0
