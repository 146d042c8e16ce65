"""Stage 1 in several processes equals accumulation in one, whatever the draws of each process close."""

from __future__ import annotations

import json

import pytest
import torch

from s3prl_dphubert.data.batches import BatchConfig, BatchStream
from s3prl_dphubert.data.manifest import scan
from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig
from s3prl_dphubert.distillation.task import JointPruning
from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.pruning.gates import KINDS, GateConfig
from s3prl_dphubert.training.distributed import join
from s3prl_dphubert.training.optimizer import ScheduledAdamW
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.training.trainer import Trainer
from tests.helpers.compression_runs import make_place
from tests.helpers.forked_processes import finish, run

UPDATES, LAYERS = 320, 3
SHAPE = ModelConfig(
    conv_channels=(8,) * 7,
    embed_dim=16,
    total_heads=2,
    head_dim=8,
    heads=((0, 1),) * LAYERS,
    ffn=(3,) * LAYERS,
    pos_conv_kernel=8,
    pos_conv_groups=4,
)
BUDGETS = {"parameters": Budget(0.35, warmup=20), "macs": Budget({"macs": 0.5}, warmup=20, seconds=1.0)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


def train(place, folder, budget, accumulate):
    """Train under gates of all kinds; note which layers each draw leaves without heads or units."""
    with join("cpu") as processes:
        torch.manual_seed(0)
        teacher, student = SpeechModel(SHAPE), SpeechModel(SHAPE)
        student.load_state_dict(teacher.state_dict())
        objective = Objective(ObjectiveConfig(groups=((0,), (1, 3))), 16, 16, LAYERS, LAYERS)
        gated = GatedModel(student, GateConfig(kinds=tuple(KINDS), std=1.0))
        config = TrainConfig(
            updates=UPDATES, warmup=20, lr=1e-3, gate_lr=0.1, accumulate=accumulate, num_workers=0
        )
        task = JointPruning(teacher, gated, objective, config, budget)
        closed, sample = [], task.sample_masks

        def noted(generator):
            masks = sample(generator)
            groups = [masks.heads[i] for i in range(LAYERS)] + [masks.ffn[i] for i in range(LAYERS)]
            closed.append([not bool(group.any()) for group in groups])
            return masks

        task.sample_masks = noted
        audio = scan([place / "audio"])[0][""]
        stream = BatchStream(audio, BatchConfig(seconds_per_batch=0.6, min_seconds=0.3, max_seconds=0.3))
        Trainer(task, config, stream, folder, 3, processes=processes).run()
        sparsity = {count: float(value) for count, value in task.sparsity().items()}
        content = {"module": task.module.state_dict(), "closed": closed, "sparsity": sparsity}
        torch.save(content, folder / f"end-{processes.rank}.pt")


@pytest.mark.slow
@pytest.mark.torchrun
@pytest.mark.parametrize("count", list(BUDGETS))
def test_two_processes_equal_one_that_accumulates_two(place, tmp_path, count):
    """Over 320 updates in which every layer closes and opens, in one process while not in the other."""
    budget = BUDGETS[count]
    finish(run(tmp_path / "one", train, place, tmp_path / "one", budget, 2))
    finish(run(tmp_path / "two", train, place, tmp_path / "two", budget, 1, world=2))
    whole = torch.load(tmp_path / "one" / "end-0.pt")
    ends = [torch.load(tmp_path / "two" / f"end-{rank}.pt") for rank in (0, 1)]
    for end in ends:
        for name, tensor in end["module"].items():
            assert torch.equal(tensor, ends[0]["module"][name]), name
            torch.testing.assert_close(tensor, whole["module"][name], atol=1e-5, rtol=1e-5)
    draws = torch.tensor([end["closed"] for end in ends])  # (ranks, updates, groups)
    assert draws.transpose(0, 1).flatten(0, 1).tolist() == whole["closed"]
    after_warmup = draws[:, budget.warmup :]
    share = after_warmup.float().mean((0, 1))
    assert bool(((share > 0.05) & (share < 0.95)).all()), share
    assert bool((after_warmup[0] != after_warmup[1]).any(0).all())  # closed in one process alone
    assert whole["sparsity"][count] == pytest.approx(budget.shares[count], abs=0.1)
    rows = [json.loads(row) for row in (tmp_path / "one" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["skipped"] == 0


def lose_other_layers(folder):
    """Processes whose missing gradients have equal sizes, so that their sum would still go through."""
    with join("cpu") as processes:
        weights = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
        optimizer = ScheduledAdamW([{"params": weights, "base_lr": 0.1}], 0, 10)
        weights[processes.rank].grad = torch.full((3,), 10.0**processes.rank)
        processes.sum(optimizer.dense_gradients())
        torch.save([weight.grad for weight in weights], folder / f"{processes.rank}.pt")


@pytest.mark.slow
@pytest.mark.torchrun
def test_gradients_of_other_layers_are_not_added_up(tmp_path):
    finish(run(tmp_path, lose_other_layers, tmp_path, world=2))
    for rank in (0, 1):
        assert [float(grad[0]) for grad in torch.load(tmp_path / f"{rank}.pt")] == [1.0, 10.0, 0.0]


def test_a_step_without_gradients_of_a_layer_is_one_with_zeros():
    """Momentum goes on, as on a device that multiplies by the mask."""
    runs = []
    for missing in (None, torch.zeros(3)):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = ScheduledAdamW([{"params": [weight], "base_lr": 0.1}], 0, 10)
        for update, grad in enumerate((torch.ones(3), missing)):
            weight.grad = None if grad is None else grad.clone()
            optimizer.schedule(update)
            optimizer.dense_gradients()
            optimizer.step()
        runs.append(weight.detach())
    assert torch.equal(*runs)
    assert float(runs[0][0]) < 0.89  # the second step moved it, too
