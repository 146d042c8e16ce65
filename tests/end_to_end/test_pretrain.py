"""``run_pretrain.py -u dphubert``: the updates of ``compress``, made by s3prl's own runner."""

from __future__ import annotations

import functools
import json
import signal
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from s3prl_dphubert import compress, load_model
from s3prl_dphubert.checkpoints.s3prl_states import read_states
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.model.cost import parameters
from s3prl_dphubert.model.state_dict import load_weights_only
from s3prl_dphubert.pretrain.runner_checkpoint import find_states
from s3prl_dphubert.upstream.entries import dphubert_local
from s3prl_dphubert.utils.config_io import from_dict
from tests.helpers.models import assert_same, outputs
from tests.helpers.pretraining_runs import BATCH, STAGE1, STAGE2, data, make_place, same, upstream
from tests.helpers.s3prl_runs import Experiment, python

pytestmark = [pytest.mark.slow, pytest.mark.s3prl]

STARTS = """
import json, sys
from s3prl_dphubert.cli import main
for arguments in json.loads(sys.argv[1]):
    assert main(["run_pretrain", *arguments]) == 0
"""
KILLED = """
import os, signal, sys
from s3prl_dphubert.cli import main
from s3prl_dphubert.pretrain.expert import UpstreamPretrainExpert

def dying(self, data, records, global_step, log_step, forward=UpstreamPretrainExpert.forward):
    if global_step == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, data, records, global_step, log_step)

UpstreamPretrainExpert.forward = dying
main(["run_pretrain", *sys.argv[1:]])
"""
BARE = {"S3PRL_DPHUBERT_COMPAT": "0", "S3PRL_DPHUBERT_PLUGIN": "0"}  # nothing of s3prl is repaired


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("pretrain"))


def start(place, name, model="g1", run="c1", *more):
    """Arguments of a new experiment."""
    files = ["-g", str(place / f"{model}.yaml"), "-c", str(place / f"{run}.yaml")]
    return ["-u", "dphubert", *files, "-n", name, "-p", name, "--device", "cpu", *more]


@pytest.fixture(scope="module")
def done(place):
    """Stage 1 whole, and killed in update 13 and resumed; stage 2 after it; one by epochs, and extended.

    The last is told at its resumption to run for longer.
    """
    killed = python("-c", KILLED, *start(place, "killed"), cwd=place, **BARE)
    assert killed.code == -signal.SIGKILL, killed.err[-2000:]
    left = sorted(path.name for path in (place / "killed").glob("states-*"))
    assert left == ["states-10", "states-10.ckpt", "states-5", "states-5.ckpt"]
    starts = [
        start(place, "whole"),
        ["-e", "killed", "--device", "cpu"],
        start(place, "two", "g2", "c2"),
        start(place, "epochs", "g1", "c3"),
        ["-e", "epochs", "-o", "config.runner.n_epochs=5"],
    ]
    return python("-c", STARTS, json.dumps(starts), cwd=place, **BARE).ok()


@pytest.fixture(scope="module")
def compressed(place):
    """The same two stages by ``compress``."""
    quiet = {"accumulate": 1, "log_every": 1, "validate_every": 100, "num_workers": 0}
    run = upstream(place) | {
        "data": {"train": str(place / "x.tsv"), "batch": BATCH},
        "stage1": STAGE1 | quiet | {"updates": 20},
        "stage2": STAGE2 | quiet | {"updates": 12},
    }
    compress(from_dict(CompressConfig, run), place / "compressed")
    return place / "compressed"


@functools.cache
def events(folder: Path):
    """Scalar -> values, by the names that the runner and the expert gave them."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    prefix = "dphubert/train-"
    tags = accumulator.Tags()["scalars"]
    assert all(tag.startswith(prefix) for tag in tags)
    return {tag.removeprefix(prefix): [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in tags}


@pytest.mark.parametrize(("stage", "name", "updates"), [(1, "whole", 20), (2, "two", 12)])
def test_makes_the_updates_of_compress(place, done, compressed, stage, name, updates):
    """Loss and its terms, sparsity, learning rates and norms of all updates, and the models they end in."""
    rows = [json.loads(r) for r in (compressed / f"stage{stage}" / "log.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(1, updates + 1))
    scalars = events(place / name)
    names = ["loss", "distillation", "l1", "cos", "lr", "gradient_norm"]
    names += ["sparsity", "target_sparsity"] if stage == 1 else []
    for scalar in names:
        steps, values = zip(*scalars[scalar.replace("gradient_norm", "gradient-norm")], strict=True)
        assert list(steps) == list(range(1, updates + 1))
        assert list(values) == pytest.approx([row[scalar] for row in rows], rel=1e-5, abs=1e-8), scalar
    ours = load_model(place / name / f"states-{updates}")
    theirs = load_model(compressed / ("pruned" if stage == 1 else "model"))
    assert ours.config == theirs.config
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, atol=1e-5, rtol=1e-5)


def test_learning_rates_rise_from_the_first_update(place, done):
    """s3prl's warm-up would begin at 0; and gates have a rate of their own."""
    scalars = events(place / "whole")
    rates = [value for _, value in scalars["lr"]]
    assert rates[:4] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3 * 16 / 17])
    assert rates[-1] == 0
    assert [v for _, v in scalars["gate-lr"]] == pytest.approx([200 * rate for rate in rates])
    assert {value for _, value in scalars["skipped"]} == {0}


def test_killed_and_resumed_equals_undisturbed(place, done):
    """Weights, gates, multipliers and the optimizer's state, to the bit; no update twice."""
    whole, resumed = (load_weights_only(place / name / "states-20.ckpt") for name in ("whole", "killed"))
    assert same(whole["DPHuBERT"]["module"], resumed["DPHuBERT"]["module"], 85)
    assert any("gates" in name for name in whole["DPHuBERT"]["module"])
    assert whole["DPHuBERT"]["module"]["lagrangian.multipliers"].abs().min() > 0
    assert whole["Step"] == resumed["Step"] == 20
    for checkpoint in (whole, resumed):
        steps = {int(state["step"]) for state in checkpoint["Optimizer"]["state"].values()}
        assert steps == {20}
    for index, state in whole["Optimizer"]["state"].items():
        assert same(state, resumed["Optimizer"]["state"][index], 3)
    losses = [[e for e in events(place / name)["loss"] if e[0] > 13] for name in ("whole", "killed")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 7
    a, b = (load_model(place / name / "states-20") for name in ("whole", "killed"))
    assert a.config == b.config
    assert same(a.state_dict(), b.state_dict(), len(a.state_dict()))


def test_checkpoints_are_plain_and_complete(place, done):
    content = load_weights_only(place / "whole" / "states-20.ckpt")  # weights_only, without s3prl's classes
    assert content["Config"] == yaml.safe_load((place / "c1.yaml").read_text()) | {
        "pretrain_expert": {"datarc": data(place, train_batch_size=4)}  # what an epoch has on average
    }
    assert content["Args"].upstream == content["Args"]["upstream"] == "dphubert"
    recipe = content["Upstream_Config"]["recipe"]
    assert (recipe["stage"], recipe["seed"], recipe["teacher"]) == (1, 3, str(place / "teacher"))
    second = load_weights_only(place / "two" / "states-12.ckpt")["Upstream_Config"]
    assert (second["recipe"]["stage"], second["updates1"]) == (2, 20)
    card = (place / "two" / "states-10" / "README.md").read_text()
    assert "stage 1: 20 updates, stage 2: 10 updates" in card


def test_the_last_checkpoint_sorts_last(place, done):
    """Steps count where s3prl counts them, epochs where it counts those; only two are kept."""
    names = {folder: sorted(p.name for p in (place / folder).glob("states-*")) for folder in ("whole", "two")}
    assert names == {
        "whole": ["states-15", "states-15.ckpt", "states-20", "states-20.ckpt"],
        "two": ["states-10", "states-10.ckpt", "states-12", "states-12.ckpt"],
    }
    assert "[Runner] - Training for 4 epochs, which is equivalent to 14 steps" in done.out
    assert "[Runner] - Training for 5 epochs, which is equivalent to 17 steps" in done.out
    assert "Resume from epochs/states-14.ckpt" in done.out
    assert find_states(place / "epochs").name == "states-17.ckpt"
    assert "[DPHuBERT] - The last checkpoint is named states-17.ckpt" in done.out + done.err


def test_epochs_decide_the_schedule(place, done):
    """14 micro-batches an epoch, 4 an update: 14 updates; then 5 epochs make 17."""
    steps, rates = zip(*events(place / "epochs")["lr"], strict=True)
    assert list(steps) == list(range(1, 18))
    assert rates[3:14] == pytest.approx([1e-3 * (14 - step) / 11 for step in range(4, 15)])
    assert rates[14:] == pytest.approx([1e-3 * (17 - step) / 14 for step in range(15, 18)])


def test_models_beside_checkpoints_are_within_budget_and_equal(place, done):
    teacher = load_model(place / "teacher")
    limit = 0.6 * parameters(teacher.config)
    for folder, updates in (("whole", 15), ("whole", 20), ("two", 10), ("epochs", 17)):
        at = place / folder / f"states-{updates}"
        beside, inside = (dphubert_local(ckpt=path).model for path in (at, f"{at}.ckpt"))
        assert beside.config == inside.config
        assert same(beside.state_dict(), inside.state_dict(), len(beside.state_dict()))
        assert 0.95 * limit <= parameters(beside.config) <= limit
        assert not beside.training
    a, b = (load_model(place / folder) for folder in ("whole/states-20", "two/states-12"))
    assert a.config == b.config
    assert not torch.equal(outputs(a)[0], outputs(b)[0])
    masked = read_states(place / "whole" / "states-20.ckpt")
    assert_same(outputs(masked.model()), outputs(a), 0.0)


def test_a_downstream_runs_on_a_checkpoint(place, done, tmp_path):
    chosen = ["-u", "dphubert_local", "-k", str(place / "two" / "states-12.ckpt")]
    experiment = Experiment("sid", tmp_path, chosen)
    ended = experiment.several(experiment.train, experiment.evaluate).ok()
    assert len(experiment.scores(ended.out)) == 1
    assert experiment.checkpoint(2)["Featurizer"]["weights"].shape == (4,)
