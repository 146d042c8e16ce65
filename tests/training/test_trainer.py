"""Training: exact to the bit where it is interrupted, in every precision, and safe from bad losses."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from s3prl_dphubert.data.batches import BatchConfig, BatchStream
from s3prl_dphubert.data.manifest import scan
from s3prl_dphubert.distillation import task as distil
from s3prl_dphubert.distillation.frame_masking import MaskingConfig
from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig
from s3prl_dphubert.distillation.task import JointPruning
from s3prl_dphubert.errors import CheckpointError, RunError
from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.model.inference.folded import FoldedModel
from s3prl_dphubert.model.state_dict import load_weights_only
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.training.nonfinite import SkipCounter
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.training.trainer import Trainer
from s3prl_dphubert.utils.environment import changes, environment
from tests.helpers.compression_runs import distillation, make_place, stream_of
from tests.helpers.speech import tone


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.mark.parametrize("workers", [0, 2])
def test_interrupted_training_equals_undisturbed(place, tmp_path, caplog, workers):
    """Stop after 5 of 10 updates and go on: the same weights, gates and multipliers to the bit."""
    every = {"num_workers": workers, "accumulate": 2, "precision": "bf16"}
    settings = TrainConfig(updates=10, warmup=3, save_every=5, **every)
    states = []
    for folder, stop in (("whole", None), ("halves", 5)):
        for _ in range(2 if stop else 1):
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
    assert caplog.messages == []


@pytest.mark.slow
def test_what_a_resumed_run_changes_is_one_warning(place, tmp_path, caplog):
    settings = {"warmup": 1, "save_every": 2, "num_workers": 0}
    Trainer(
        distillation(place), TrainConfig(updates=2, **settings, accumulate=1), stream_of(place), tmp_path
    ).run()
    saved = load_weights_only(tmp_path / "state-00000002.pt")["environment"]
    assert saved["torch"] == torch.__version__
    assert (saved["threads"], saved["processes"], saved["precision"]) == (1, 1, "fp32")
    torch.set_num_threads(2)
    try:
        with caplog.at_level(logging.WARNING):
            changed = TrainConfig(updates=4, precision="bf16", accumulate=3, **settings)
            Trainer(distillation(place), changed, stream_of(place), tmp_path).run()
    finally:
        torch.set_num_threads(1)
    (message,) = caplog.messages
    words = "precision bf16 (was fp32), threads 2 (was 1), micro-batches an update 3 (was 1)"
    assert message.startswith(f"train goes on after update 2 with {words};")
    assert [path.name for path in tmp_path.glob("state-*")] == ["state-00000002.pt", "state-00000004.pt"]


def test_saved_environments_name_versions_and_hardware():
    now = environment(torch.device("cpu"), "fp32", processes=4, accumulate=2)
    assert set(now) >= {"python", "torch", "numpy", "s3prl_dphubert", "device", "threads"}
    assert now["micro-batches an update"] == 8
    assert changes(now, now) == ""
    assert changes({**now, "torch": "2.8.0"}, now) == f"torch {torch.__version__} (was 2.8.0)"
    assert changes({}, now) == ""  # of a checkpoint that does not say, nothing is known


def _stop_after(after_step, trainer, update, *arguments):
    after_step(*arguments)
    if trainer.update == update:
        raise KeyboardInterrupt


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precisions_learn(place, tmp_path, precision):
    settings = TrainConfig(
        updates=8, warmup=2, lr=3e-3, precision=precision, log_every=1, num_workers=0, accumulate=1
    )
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
    settings = TrainConfig(updates=8, warmup=2, max_nonfinite=3, num_workers=0, accumulate=1)
    with pytest.raises(RunError, match="3 updates in a row"):
        Trainer(task, settings, stream_of(place), tmp_path).run()
    assert all(torch.equal(before[name], tensor) for name, tensor in task.module.state_dict().items())


def test_a_skipped_update_is_logged_as_json(place, tmp_path):
    task = distillation(place)
    real = task.step

    def once(batch, update, generator):
        loss, scalars = real(batch, update, generator)
        if update == 1:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss, scalars

    task.step = once
    settings = TrainConfig(updates=3, warmup=1, log_every=1, num_workers=0, accumulate=1)
    Trainer(task, settings, stream_of(place), tmp_path).run()
    text = (tmp_path / "log.jsonl").read_text()
    rows = [json.loads(row, parse_constant=pytest.fail) for row in text.splitlines()]
    assert [row["skipped"] for row in rows] == [0, 1, 1]
    assert ["gradient_norm" in row for row in rows] == [True, False, True]


def test_teacher_is_frozen_and_runs_only_as_deep_as_needed(place, monkeypatch):
    task = distillation(place)
    task.objective = Objective(ObjectiveConfig(groups=((0,), (2,))), 32, 32, 3, 3)
    seen = []
    real = FoldedModel.extract_features
    monkeypatch.setattr(
        FoldedModel,
        "extract_features",
        lambda self, *a, **k: (
            seen.append((self is task._folded["fp32"], k["num_layers"])) or real(self, *a, **k)
        ),
    )
    loss, _ = task.step(stream_of(place)[0], 0, torch.Generator())
    loss.backward()
    assert seen == [(True, 2)]
    assert not task.teacher.training
    assert all(p.grad is None for p in task.teacher.parameters())


class Asked(TorchDispatchMode):
    """Notes operations whose result the host has to wait for."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item", "masked_select")

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if any(name == waiting for waiting in self.WAITING):
            self.operations.append(name)
        return function(*args, **kwargs or {})


SHARES = {"parameters": 0.4, "macs": 0.4}


@pytest.mark.parametrize(
    ("budget", "options"),
    [
        (None, {}),
        (Budget(SHARES, warmup=2), {}),
        (Budget(SHARES, warmup=2, constraint="projection"), {"gates": {"keep": {"ffn": {"min": 2}}}}),
        (
            Budget(SHARES, warmup=2),
            {"gates": {"estimator": "straight_through"}, "masking": MaskingConfig(loss="masked")},
        ),
        (None, {"mode": "clusters", "gram": 1.0}),
        (None, {"mode": "distilhubert"}),
    ],
)
def test_an_update_asks_the_device_for_nothing(place, tmp_path, monkeypatch, budget, options):
    """With the models as a GPU runs them, until the numbers are read."""

    def dense(model, waveforms, masks, corrupt):
        return model.extract_features(waveforms, masks=masks, corrupt=corrupt)[0]

    monkeypatch.setattr(distil, "sparse_features", dense)
    task = distillation(place, budget, **options)
    task.targets = lambda waveforms: task.teacher.extract_features(waveforms)[0]
    settings = TrainConfig(updates=4, warmup=2, num_workers=0, accumulate=2)
    trainer = Trainer(task, settings, stream_of(place), tmp_path)
    task.module.train()
    batches = next(trainer.micro_batches())
    before = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    trainer.train_step(batches)
    with Asked() as asked, monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "tolist", lambda self: pytest.fail("asked for a list"))
        trainer.update = 1
        scalars = trainer.train_step(batches)
        assert asked.operations == []
        assert float(scalars["loss"]) < 5
        assert asked.operations == ["_local_scalar_dense"]  # which would have been noticed
    assert trainer.read_scalars(scalars)["loss"] < 5
    assert any(not torch.equal(before[name], tensor) for name, tensor in task.module.state_dict().items())


def test_numbers_are_read_when_they_are_due_where_reading_waits(place, tmp_path):
    config = TrainConfig(updates=23, warmup=2, log_every=5, validate_every=8, save_every=7, max_nonfinite=11)
    trainer = Trainer(distillation(place), config, stream_of(place), tmp_path)
    trainer.device = torch.device("meta")
    due = []
    for trainer.update in range(1, 24):
        if trainer.must_read_scalars():
            due.append(trainer.update)
    assert due == [5, 7, 8, 10, 11, 14, 15, 16, 20, 21, 22, 23]


def test_skips_between_two_readings_are_all_counted(caplog):
    skips = SkipCounter(torch.device("cpu"), total=2, in_a_row=1, next_update=6)
    for bad in (True, True, False, True):
        skips.count(torch.tensor(bad))
    assert skips.counts.tolist() == [5, 1, 3]
    skips.read(9, 4)
    assert (skips.total, skips.in_a_row) == (5, 1)
    assert caplog.messages == ["3 of the updates 6 to 9 skipped: non-finite loss or gradient"]
    with pytest.raises(RunError, match="3 updates in a row"):
        for _ in range(2):
            skips.count(torch.tensor(True))
        skips.read(12, 3)


@pytest.mark.slow
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
    settings = TrainConfig(updates=2, warmup=1, lr=1e-4, num_workers=0, save_every=9, accumulate=1)
    task = JointPruning(teacher, GatedModel(student), objective, settings, budget)
    task.parameter_groups()
    trainer = Trainer(task, settings, stream, tmp_path / "run")
    trainer.save = lambda: None  # 1 GB of optimizer state is not the point here
    trainer.run()
    rows = [json.loads(row) for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["update"] == 2
    assert rows[-1]["skipped"] == 0
    assert -1 < rows[-1]["distillation"] < 0


def trained(place, folder, updates, **changes):
    settings = {"warmup": 1, "save_every": 2, "num_workers": 0, "accumulate": 1} | changes
    trainer = Trainer(distillation(place), TrainConfig(updates=updates, **settings), stream_of(place), folder)
    trainer.run()
    return trainer


@pytest.mark.parametrize("damage", ["empty", "cut", "another type", "another training"])
def test_an_older_checkpoint_replaces_a_damaged_one(place, tmp_path, caplog, damage):
    trained(place, tmp_path, 4)
    newest = tmp_path / "state-00000004.pt"
    content = torch.load(newest)
    if damage == "empty":
        newest.write_bytes(b"")
    elif damage == "cut":
        newest.write_bytes(newest.read_bytes()[:5000])
    elif damage == "another type":
        torch.save(content | {"optimizer": [1, 2]}, newest)
    else:
        torch.save(content | {"module": {"weight": torch.zeros(2)}}, newest)
    with caplog.at_level(logging.WARNING):
        resumed = trained(place, tmp_path, 4)
    (message,) = caplog.messages
    assert str(newest) in message and message.endswith("going on from state-00000002.pt")
    assert all(
        torch.equal(tensor, content["module"][name])
        for name, tensor in resumed.task.module.state_dict().items()
    )


def test_without_a_readable_checkpoint_the_folder_to_remove_is_named(place, tmp_path):
    trained(place, tmp_path, 4)
    for path in tmp_path.glob("state-*.pt"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"remove {tmp_path} to train train anew"):
        trained(place, tmp_path, 4)


def test_float16_may_follow_another_precision(place, tmp_path, caplog):
    trained(place, tmp_path, 2)
    with caplog.at_level(logging.WARNING):
        resumed = trained(place, tmp_path, 4, precision="fp16")
    assert resumed.update == 4
    assert "precision fp16 (was fp32)" in caplog.messages[0]
    assert resumed.scaler.get_scale() > 0


def test_a_damaged_log_is_no_obstacle(place, tmp_path):
    trained(place, tmp_path, 2, log_every=1)
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'\xff\xfe{\n3\n{"update": "x"}\n{"update": null}\n' + log.read_bytes())
    trained(place, tmp_path, 4, log_every=1)
    updates = [json.loads(row)["update"] for row in log.read_text().splitlines()]
    assert updates == [1, 2, 3, 4]
