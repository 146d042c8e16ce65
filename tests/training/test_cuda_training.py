"""Training on the CPU and on a GPU: skipped updates, exact resuming, and an exchange among one process."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist

from s3prl_dphubert.compression.pipeline import compress
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.training.determinism import deterministic_kernels
from s3prl_dphubert.training.distributed import Processes
from s3prl_dphubert.training.gradient_exchange import GradientExchange
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.training.trainer import Trainer
from tests.helpers.compression_runs import distillation, make_place, settings, stream_of
from tests.helpers.devices import DEVICES

pytestmark = pytest.mark.slow
BUDGETS = [Budget(0.5, warmup=2), None]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


def trainer_on(device, place, folder, budget, **options):
    """A trainer whose task is on the device."""
    task = distillation(place, budget)
    task.teacher.to(device)
    task.module.to(device)
    values = {"updates": 8, "warmup": 2, "accumulate": 1, "lr": 3e-3, "num_workers": 0, "log_every": 1}
    config = TrainConfig(**values | options)
    return Trainer(task, config, stream_of(place), folder, processes=Processes(device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("budget", BUDGETS, ids=["stage 1", "stage 2"])
def test_a_bad_update_is_skipped_and_the_others_learn(place, tmp_path, device, precision, budget):
    trainer = trainer_on(device, place, tmp_path, budget, precision=precision)
    task, real = trainer.task, trainer.task.step
    before = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}

    def broken(batch, update, generator):
        loss, scalars = real(batch, update, generator)
        return loss * (float("nan") if update == 3 else 1.0), scalars

    task.step = broken
    trainer.run()
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert rows[3]["skipped"] == rows[2]["skipped"] + 1
    assert rows[-1]["skipped"] <= 3  # float16 may overflow while its scale falls
    assert rows[-1]["skipped"] == rows[3]["skipped"]
    after = task.module.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert sum(not torch.equal(before[name], after[name]) for name in before) > 40
    if budget:
        assert rows[-1]["sparsity"] > rows[0]["sparsity"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_deterministic_kernels_a_resumed_run_ends_alike_to_the_bit(place, tmp_path, device, precision):
    states = []
    with deterministic_kernels(True):
        for folder, stop in (("whole", None), ("halves", 3)):
            for _ in range(2 if stop else 1):
                options = {"precision": precision, "save_every": 3, "updates": 6}
                trainer = trainer_on(device, place, tmp_path / folder, BUDGETS[0], **options)
                if stop and not trainer.states():
                    trainer.after_step = partial(stop_after, trainer.after_step, trainer, stop)
                    with pytest.raises(KeyboardInterrupt):
                        trainer.run()
                else:
                    trainer.run()
            states.append(trainer.task.module.state_dict())
    assert len(states[0]) > 50
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


def stop_after(after_step, trainer, update, *arguments):
    after_step(*arguments)
    if trainer.update == update:
        raise KeyboardInterrupt


@pytest.fixture
def group(request):
    """A process group of this process alone; on a GPU of NCCL."""
    backend = "gloo" if request.param == "cpu" else "cpu:gloo,cuda:nccl"
    options = {"rank": 0, "world_size": 1, "timeout": timedelta(seconds=60)}
    dist.init_process_group(backend, store=dist.HashStore(), **options)
    yield request.param
    dist.destroy_process_group()


@pytest.mark.parametrize("group", DEVICES, indirect=True)
def test_an_exchange_among_one_process_changes_nothing(place, tmp_path, group):
    states, sent = [], []

    class Watched(Processes):
        def start_sum(self, tensor):
            sent.append(tensor.device.type)
            return super().start_sum(tensor)

    with deterministic_kernels(True):
        for exchanged in (False, True):
            trainer = trainer_on(group, place, tmp_path / str(exchanged), BUDGETS[0])
            trainer.task.module.train()
            if exchanged:
                parameters = [p for g in trainer.optimizer.param_groups for p in reversed(g["params"])]
                trainer.exchange = GradientExchange(parameters, Watched(device=group))
            batches = trainer.micro_batches()
            for update in range(4):
                trainer.update = update
                trainer.train_step(next(batches))
            states.append(trainer.task.module.state_dict())
    assert set(sent) == {group}
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []


@pytest.mark.parametrize("device", DEVICES)
def test_a_whole_run_with_cached_targets(place, tmp_path, device):
    values = settings(place)
    values["data"]["batch"]["crops"] = "fixed"
    values |= {"device": device, "deterministic": True, "cache_teacher": True}
    for stage in ("stage1", "stage2"):
        values[stage] |= {"num_workers": 2, "precision": "bf16"}
    model = compress(out=tmp_path / "run", **values)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["model"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert results["model"]["parameters"] < 0.61 * results["teacher"]["parameters"]
    assert all(scalars["loss"] < 1 for scalars in results["valid"].values())
    assert list((tmp_path / "run" / "targets").iterdir())
