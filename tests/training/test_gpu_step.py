"""On a GPU a training step leaves nothing on the wrong device, and the host waits for nothing.

The device is one without numbers, so that this is tested everywhere; `make test-gpu` takes a real one.
"""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.data.batches import Batch
from s3prl_dphubert.distillation.frame_masking import MaskingConfig
from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig
from s3prl_dphubert.distillation.target_cache import TargetCache
from s3prl_dphubert.distillation.task import Distillation, JointPruning
from s3prl_dphubert.model.cost import expected_widths
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.pruning.gates import KINDS, GateConfig
from s3prl_dphubert.pruning.structured import prune
from s3prl_dphubert.training.distributed import Processes
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.training.trainer import Trainer
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.models import gated, tiny

pytestmark = pytest.mark.slow
CUDA = torch.device("cuda")
GROUPS = ObjectiveConfig(groups=((0,), (1, 3)))


def stage(shape, precision, budget=None, gates=None, objective=GROUPS, valid=()):
    """A task on the CPU: stage 1 if there is a budget, else stage 2 with a pruned student."""
    teacher = tiny(shape)
    config = TrainConfig(updates=9, warmup=2, num_workers=0, accumulate=2, precision=precision)
    student = tiny(shape) if budget else prune(gated(tiny(shape)))
    heads = Objective(objective, 32, 32, 3, 3)
    if budget is None:
        return Distillation(teacher, student, heads, config, valid)
    student = GatedModel(student, gates or GateConfig(kinds=tuple(KINDS)))
    return JointPruning(teacher, student, heads, config, budget, valid)


def trainer_of(task, folder):
    """A trainer on the device, to which the task is moved."""
    task.teacher.to(CUDA)
    task.module.to(CUDA).train()
    return Trainer(task, task.config, None, folder, processes=Processes(device="cuda"))


def micro_batches(samples=4000, keys=()):
    batch = Batch(torch.zeros(2, samples), torch.full((2,), samples), ("a", "b"), keys=keys)
    return [batch.to(CUDA), batch.to(CUDA)]


def assert_on_device(task, scalars):
    for name, parameter in task.module.named_parameters():
        assert parameter.device.type == "cuda", name
        if parameter.requires_grad:
            assert parameter.grad.device.type == "cuda", name
    assert {value.device.type for value in scalars.values() if isinstance(value, torch.Tensor)} == {"cuda"}


@pytest.mark.parametrize(
    ("shape", "precision", "budget"),
    [
        ("hubert", "fp16", Budget({"parameters": 0.4, "superb_macs": 0.4}, warmup=2)),
        ("wavlm", "bf16", Budget(0.4, warmup=2)),
        ("large", "fp16", Budget({"macs": 0.4}, warmup=2, constraint="projection")),
        ("data2vec", "fp32", Budget(0.4, warmup=2)),
        ("hubert", "fp32", None),
        ("wavlm", "fp16", None),
        ("large", "bf16", None),
        ("data2vec", "fp16", None),
        ("mhubert", "bf16", None),
        ("mms", "fp16", None),
    ],
)
def test_a_step_of_both_stages_waits_for_nothing(tmp_path, shape, precision, budget):
    task = stage(shape, precision, budget)
    with fake_cuda() as waits:
        trainer = trainer_of(task, tmp_path)
        waits.found.clear()
        for trainer.update in range(2 if budget else 1):  # the second finds the optimizer's state
            scalars = trainer.train_step(micro_batches())
        assert waits.found == []
        assert_on_device(task, scalars)
        low = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
        assert waits.types["convolution"] == {low}
        assert "_fused_adamw_" in waits.types


@pytest.mark.parametrize(
    ("gates", "objective"),
    [
        (GateConfig(estimator="straight_through"), GROUPS),
        (GateConfig(), ObjectiveConfig(groups=((0,), (1, 3)), masking=MaskingConfig(loss="masked"))),
    ],
    ids=["straight through", "masked frames"],
)
def test_other_gates_and_objectives_wait_for_nothing(tmp_path, gates, objective):
    task = stage("hubert", "bf16", Budget(0.4, warmup=2), gates, objective)
    with fake_cuda() as waits:
        trainer = trainer_of(task, tmp_path)
        waits.found.clear()
        assert_on_device(task, trainer.train_step(micro_batches()))
        assert waits.found == []


def test_cached_targets_are_found_and_stored_without_a_wait(tmp_path, monkeypatch):
    task, keys = stage("hubert", "fp32"), (b"a" * 16, b"b" * 16)
    layers, stored = task.objective.config.target_layers, []
    on_cpu = TargetCache(tmp_path / "targets", layers, 32, 1.0)
    targets = on_cpu.get(keys, "fp32", lambda: task.targets(torch.zeros(2, 4000)))
    frames = targets[0].shape[1]
    with fake_cuda() as waits:
        trainer = trainer_of(task, tmp_path / "run")
        task.cache = TargetCache(tmp_path / "targets", layers, 32, 1.0, CUDA)
        waits.found.clear()
        trainer.train_step(micro_batches(keys=keys))
        assert (task.cache.hits, task.cache.misses) == (4, 0)
        store = task.cache.stores["fp32"]
        monkeypatch.setattr(store, "append", lambda blocks: stored.append(len(list(blocks))))
        waits.answer = 1.0  # that states are finite, which is checked on the host
        trainer.train_step(micro_batches(keys=(b"c" * 16, b"d" * 16)))
        assert (task.cache.hits, task.cache.misses) == (4, 4)
        assert stored == [2]  # those of the first micro-batch, during the second
        task.cache.flush()
        assert stored == [2, 2]
        assert waits.found == []
    assert frames == 12


def test_a_validation_reads_its_numbers_once_at_the_end(tmp_path):
    valid = [
        Batch(torch.zeros(2, samples), torch.full((2,), samples), ("a", "b")) for samples in (4000, 5000)
    ]
    task = stage("wavlm", "bf16", Budget(0.4, warmup=2), valid=valid)
    with fake_cuda() as waits:
        trainer_of(task, tmp_path)
        masks = task.sample_masks(torch.Generator())
        waits.found.clear()
        waits.answer = 0.5
        losses = task.evaluate(masks)
        assert losses == {"loss": 0.5, "l1": 0.5, "cos": 0.5}
        assert waits.found == ["_local_scalar_dense"] * 6  # of one tensor that lies on the device


def test_what_would_wait_is_found():
    """Each way of asking a device, so that none of the tests above passes for want of eyes."""
    ways = {
        "_local_scalar_dense": [float, int, bool, lambda x: x.item(), lambda x: x.max().tolist()],
        "copy from cuda to cpu": [lambda x: x.cpu(), lambda x: x.to("cpu", non_blocking=True)],
        "copy from cpu to cuda": [
            lambda x: x + torch.zeros(3).to(CUDA),
            lambda x: torch.ones(3, 3, device=CUDA)[:, [0, 2]],
            lambda x: torch.ones(3).to(CUDA, non_blocking=True),  # from memory that is not pinned
        ],
        "nonzero": [lambda x: torch.ones(3, device=CUDA).nonzero()],
        "index": [lambda x: torch.ones(3, device=CUDA)[torch.ones(3, device=CUDA) > 0]],
        "synchronize": [lambda x: torch.cuda.synchronize()],
    }
    config = tiny("wavlm").config
    with fake_cuda() as waits:
        for expected, functions in ways.items():
            for function in functions:
                waits.found.clear()
                waits.answer = 1.0
                one = torch.ones((), device=CUDA)
                assert waits.found == []
                try:
                    function(one)
                except RuntimeError:  # shapes that depend on numbers
                    assert waits.found
                assert expected in waits.found, (expected, waits.found)
        waits.found.clear()
        probability = torch.ones(3, device=CUDA, requires_grad=True)
        probability.prod()
        assert waits.found == ["prod, whose gradient looks for zeros"]
        waits.found.clear()
        expected_widths(config, {"heads": {0: torch.ones(4, device=CUDA, requires_grad=True)}})
        assert waits.found == []
