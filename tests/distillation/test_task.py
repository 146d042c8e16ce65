"""Options of the recipe in training: exact when interrupted, alike in one and in several processes."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from s3prl_dphubert.distillation.frame_masking import MaskingConfig
from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig
from s3prl_dphubert.distillation.target_cache import TargetCache
from s3prl_dphubert.distillation.task import Distillation
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.training.best_checkpoints import load_best
from s3prl_dphubert.training.distributed import join
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.training.trainer import Trainer
from tests.helpers.compression_runs import distillation, make_place, stream_of
from tests.helpers.forked_processes import finish, run
from tests.helpers.models import tiny

LOSSES = [0.5, 0.1, 0.3, 0.2, 0.4, 0.05]  # of the validation after each update
PROJECTION = Budget(0.4, warmup=3, constraint="projection", curve="cubic")
KEEP = {"conv": (0,), "heads": {"min": 2}, "ffn": {"layers": (1,), "min": 3}}
OPTIONS = {
    "masked": ({"masking": MaskingConfig()}, None, {}),
    "masked frames": ({"masking": MaskingConfig(0.5, 4, loss="masked")}, PROJECTION, {}),
    "gram": ({"gram": 1.0, "gram_intra": 1.0}, PROJECTION, {}),
    "clusters": ({"mode": "clusters", "groups": ((0,), (1, 2, 3)), "gram": 0.5}, PROJECTION, {}),
    "distilhubert": ({"mode": "distilhubert", "groups": ((1,), (3,)), "cos_type": "log_sig"}, None, {}),
    "straight through": ({}, PROJECTION, {"estimator": "straight_through"}),
    "keep": ({}, PROJECTION, {"keep": KEEP}),
}
"""Name -> options of the objective, budget, options of the gates."""
SETTINGS = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.01, "average_best": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


def train(place, folder, option, accumulate=2, stop=None):
    """Train with one set of options, and keep the weights, gates and multipliers at the end."""
    objective, budget, gates = OPTIONS[option]
    with join("cpu") as processes:
        task = distillation(place, budget, gates, **objective)
        every = {"save_every": 2, "validate_every": 1, "num_workers": 0, "accumulate": accumulate}
        task.config = TrainConfig(updates=len(LOSSES), warmup=2, lr=1e-2, gate_lr=0.3, **every, **SETTINGS)
        trainer = Trainer(task, task.config, stream_of(place), folder, 3, processes=processes)
        task.validate = lambda: {"loss": LOSSES[trainer.update - 1]}
        if stop is not None:
            trainer.after_step = partial(_stop_after, trainer.after_step, trainer, stop)
        trainer.run()
        torch.save(task.module.state_dict(), folder / f"end-{processes.rank}.pt")


def _stop_after(after_step, trainer, update, *arguments):
    after_step(*arguments)
    if trainer.update == update:
        raise KeyboardInterrupt


def differing(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.slow
@pytest.mark.parametrize("option", list(OPTIONS))
def test_interrupted_training_equals_undisturbed(place, tmp_path, option):
    """Stopped an update after a checkpoint: the same weights to the bit, also those that are averaged."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(place, whole, option)
    with pytest.raises(KeyboardInterrupt):
        train(place, halves, option, stop=5)
    train(place, halves, option)
    assert differing(torch.load(whole / "end-0.pt"), torch.load(halves / "end-0.pt")) == []
    assert differing(load_best(whole, 3), load_best(halves, 3)) == []
    checkpoints = sorted(path.name for path in halves.glob("valid-*.pt"))
    assert checkpoints == [f"valid-0000000{update}.pt" for update in (2, 4, 6)]


@pytest.mark.slow
@pytest.mark.torchrun
@pytest.mark.parametrize("option", list(OPTIONS))
def test_two_processes_equal_one_that_accumulates_two(place, tmp_path, option):
    finish(run(tmp_path / "one", train, place, tmp_path / "one", option, 2))
    finish(run(tmp_path / "two", train, place, tmp_path / "two", option, 1, world=2))
    whole = torch.load(tmp_path / "one" / "end-0.pt")
    ends = [torch.load(tmp_path / "two" / f"end-{rank}.pt") for rank in (0, 1)]
    assert differing(*ends) == []
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, whole[name], atol=1e-4, rtol=1e-4)


def test_the_mean_of_the_best_is_that_of_their_weights(place, tmp_path):
    train(place, tmp_path, "gram")
    states = [torch.load(tmp_path / f"valid-0000000{update}.pt")["module"] for update in (2, 4, 6)]
    mean = load_best(tmp_path, 3)
    for name, tensor in mean.items():
        expected = torch.stack([state[name] for state in states]).mean(0)
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)
    assert differing(load_best(tmp_path, 1), states[2]) == []  # of loss 0.05
    assert load_best(tmp_path / "nothing", 3) is None


def test_settings_reach_the_optimizer_and_the_extractor(place):
    """Biases do not decay; gradients of the conv layers alone shrink."""
    gradients = []
    for factor in (1.0, 0.1):
        config = TrainConfig(accumulate=1, feature_grad_mult=factor, **SETTINGS)
        objective = Objective(ObjectiveConfig(mode="distilhubert", groups=((3,),)), 32, 32, 3, 3)
        torch.manual_seed(0)
        for parameter in objective.parameters():
            parameter.data.normal_(std=0.1)
        task = Distillation(tiny("hubert"), tiny("hubert").train(False), objective, config)
        loss, _ = task.step(stream_of(place)[0], 0, torch.Generator())
        loss.backward()
        gradients.append({name: p.grad for name, p in task.model.named_parameters() if p.grad is not None})
    for name, whole in gradients[0].items():
        factor = 0.1 if name.startswith("feature_extractor.") else 1.0
        torch.testing.assert_close(gradients[1][name], factor * whole, atol=1e-7, rtol=1e-5)
    weights, biases = task.parameter_groups()
    assert weights["weight_decay"] == 0.01
    assert "weight_decay" not in biases
    assert weights["betas"] == biases["betas"] == (0.9, 0.98)
    named = {id(p): name for name, p in task.module.named_parameters()}
    assert all(named[id(p)].endswith("bias") for p in biases["params"])
    assert not any(named[id(p)].endswith("bias") for p in weights["params"])


def test_a_masked_student_keeps_the_teachers_cache(place, tmp_path):
    """The teacher sees all frames, so that the second epoch takes its targets from the disk."""
    task = distillation(place, gram_intra=1.0, groups=((0,), (3,)), masking=MaskingConfig())
    assert task.objective.config.target_layers == [0, 3, 2]
    task.cache = TargetCache(tmp_path, task.objective.config.target_layers, 32, 1.0)
    stream = stream_of(place, crops="fixed")
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)  # of dropout
        losses.append(float(task.step(stream[0], 0, torch.Generator().manual_seed(seed))[0].detach()))
    assert losses[0] == losses[1] != losses[2]
    assert (task.cache.misses, task.cache.hits) == (len(stream[0].keys), 2 * len(stream[0].keys))
