"""``run_pretrain.py -u dphubert``: the updates of ``compress``, made by s3prl's own runner."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import signal
from argparse import Namespace
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from models import assert_same, outputs, tiny
from s3prl_runs import Experiment, python
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from s3prl_dphubert import compress, load_model, resources, save_model
from s3prl_dphubert.checkpoint import read_pickle
from s3prl_dphubert.config import CompressConfig
from s3prl_dphubert.cost import parameters
from s3prl_dphubert.data.manifest import scan, write
from s3prl_dphubert.errors import CheckpointError, ConfigError, RunError
from s3prl_dphubert.pretrain.expert import UpstreamPretrainExpert
from s3prl_dphubert.pretrain.optimizer import GuardedAdamW
from s3prl_dphubert.pretrain.states import Models, find_states, load_states, read_states
from s3prl_dphubert.settings import from_dict
from s3prl_dphubert.upstream.entries import dphubert_local

pytestmark = pytest.mark.usefixtures("one_thread")

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
BATCH = {"seconds_per_batch": 6.0, "min_seconds": 0.4, "max_seconds": 2.0, "buckets": 3}
STAGE1 = {"lr": 1e-3, "gate_lr": 0.2, "warmup": 3}
STAGE2 = {"lr": 5e-4, "warmup": 2}


def runner(**changes):
    """The part of ``-c`` that says how long and how often."""
    steps = {"n_epochs": -1, "total_steps": 20, "log_step": 1, "save_step": 5, "max_keep": 2}
    return steps | {"gradient_accumulate_steps": 1, "gradient_clipping": 10.0} | changes


def upstream(place, **changes):
    """``-g`` of stage 1."""
    recipe = {"teacher": str(place / "teacher"), "seed": 3, "budget": {"sparsity": 0.4, "warmup": 4}}
    return recipe | {"objective": {"groups": [[0], [1, 3]]}} | changes


def data(place, **changes):
    return {"train": str(place / "x.tsv"), "num_workers": 0, "batch": BATCH} | changes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny teacher, 24 of the embedded clips, and configurations."""
    folder = tmp_path_factory.mktemp("pretrain")
    found, skipped = scan([resources.find("assets/speech/asterisk")], min_seconds=0.4)
    write(folder / "x.tsv", {"": replace(found[""], entries=found[""].entries[:24])}, skipped)
    save_model(tiny("hubert"), folder / "teacher")
    adam = {"name": "DPHuBERT"}
    stage1 = {"pretrain_expert": {"datarc": data(folder)}, "optimizer": adam | STAGE1, "runner": runner()}
    several = runner(n_epochs=4, gradient_accumulate_steps=2, precision="bf16")
    files = {
        "g1": upstream(folder),
        "c1": stage1,
        "g2": {"base": "g1.yaml", "stage": 2, "stage1": str(folder / "whole")},
        "c2": stage1 | {"optimizer": adam | STAGE2, "runner": runner(total_steps=12, save_step=10)},
        "c3": stage1 | {"pretrain_expert": {"datarc": data(folder, num_workers=1)}, "runner": several},
    }
    for name, values in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder


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
    quiet = {"log_every": 1, "validate_every": 100, "num_workers": 0}
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


def same(a, b, count):
    assert a.keys() == b.keys()
    assert len(a) == count
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("stage", "name", "updates"), [(1, "whole", 20), (2, "two", 12)])
def test_makes_the_updates_of_compress(place, done, compressed, stage, name, updates):
    """Loss and its terms, sparsity, learning rates and norms of all updates, and the models they end in."""
    rows = [json.loads(r) for r in (compressed / f"stage{stage}" / "log.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(1, updates + 1))
    found = events(place / name)
    names = ["loss", "distillation", "l1", "cos", "lr", "gradient_norm"]
    names += ["sparsity", "target_sparsity"] if stage == 1 else []
    for scalar in names:
        steps, values = zip(*found[scalar.replace("gradient_norm", "gradient-norm")], strict=True)
        assert list(steps) == list(range(1, updates + 1))
        assert list(values) == pytest.approx([row[scalar] for row in rows], rel=1e-5, abs=1e-8), scalar
    ours = load_model(place / name / f"states-{updates}")
    theirs = load_model(compressed / ("pruned" if stage == 1 else "model"))
    assert ours.config == theirs.config
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, atol=1e-5, rtol=1e-5)


def test_learning_rates_rise_from_the_first_update(place, done):
    """s3prl's warm-up would begin at 0; and gates have a rate of their own."""
    found = events(place / "whole")
    rates = [value for _, value in found["lr"]]
    assert rates[:4] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3 * 16 / 17])
    assert rates[-1] == 0
    assert [v for _, v in found["gate-lr"]] == pytest.approx([200 * rate for rate in rates])
    assert {value for _, value in found["skipped"]} == {0}


def test_killed_and_resumed_equals_undisturbed(place, done):
    """Weights, gates, multipliers and the optimizer's state, to the bit; no update twice."""
    whole, resumed = (read_pickle(place / name / "states-20.ckpt") for name in ("whole", "killed"))
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
    content = read_pickle(place / "whole" / "states-20.ckpt")  # weights_only, without s3prl's classes
    assert content["Config"] == yaml.safe_load((place / "c1.yaml").read_text()) | {
        "pretrain_expert": {"datarc": data(place, train_batch_size=4)}  # what an epoch has on average
    }
    assert content["Args"].upstream == content["Args"]["upstream"] == "dphubert"
    recipe = content["Upstream_Config"]["recipe"]
    assert (recipe["stage"], recipe["seed"], recipe["teacher"]) == (1, 3, str(place / "teacher"))
    second = read_pickle(place / "two" / "states-12.ckpt")["Upstream_Config"]
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
    """7 micro-batches an epoch, 2 an update: 14 updates; then 5 epochs make 17."""
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


def test_the_teacher_stays_as_it_is(place):
    """The runner calls train(); what it optimises and clips is what compress does."""
    expert = prepared(place)
    expert.train()
    assert not any(module.training for module in expert.task.teacher.modules())
    assert expert.task.model.training
    ours = {id(p) for p in expert.model.parameters() if p.requires_grad}
    groups = {id(p) for group in expert.optimizer.param_groups for p in group["params"]}
    assert ours == groups
    assert not ours & {id(p) for p in expert.task.teacher.parameters()}
    assert [group["maximize"] for group in expert.optimizer.param_groups] == [False, False, True]


def prepared(place, folder="nowhere", **changes):
    expert = UpstreamPretrainExpert(data(place), place / "g1.yaml", "cpu")
    config = {"runner": runner(**changes), "optimizer": {"name": "DPHuBERT", **STAGE1}}
    expert.prepare(config, place / folder)
    return expert


def test_a_student_of_its_own_is_distilled_and_goes_on(place, tmp_path):
    """Stage 2 alone, as DistilHuBERT; its checkpoint needs neither the file of -g nor a stage 1."""
    recipe = upstream(place, stage=2, student={"layers": 2}, objective={"groups": [[0], [[2, 3]]]})
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(recipe))
    config = {"runner": runner(), "optimizer": {"name": "DPHuBERT", **STAGE2}}
    expert = UpstreamPretrainExpert(data(place), tmp_path / "g.yaml", "cpu")
    expert.prepare(config, tmp_path)
    update(expert.train(), 1)
    arguments = Namespace(expdir=str(tmp_path), upstream="dphubert", override="config.x=1")
    content = expert.add_state_to_save({"Args": arguments, "Step": 0})
    torch.save(content, tmp_path / "states-1.ckpt")
    card = (tmp_path / "states-1" / "README.md").read_text()
    assert "distilled" in card and "stage 2: 1 updates" in card and "stage 1" not in card
    assert load_model(tmp_path / "states-1").config.num_layers == 2
    (tmp_path / "g.yaml").unlink()
    saved = read_pickle(tmp_path / "states-1.ckpt")
    again = UpstreamPretrainExpert(data(place), saved["Upstream_Config"], "cpu")
    again.load_model(saved)
    again.prepare(config, tmp_path)
    again.optimizer.load_state_dict(copy.deepcopy(expert.optimizer.state_dict()))
    for each in (expert, again):
        update(each.train(), 2)
        assert each.step == 2
    assert same(expert.model.state_dict(), again.model.state_dict(), len(saved["DPHuBERT"]["module"]))
    assert not hasattr(saved["Args"], "override")  # or else it would replace what is given at resumption


def update(expert, step):
    """One update, in the runner's order."""
    batch = next(iter(expert.get_train_dataloader()))
    expert(batch, records=defaultdict(list), global_step=step, log_step=1)[0].backward()
    torch.nn.utils.clip_grad_norm_(expert.model.parameters(), 10.0)
    expert.optimizer.step()
    expert.on_before_zero_grad()
    expert.optimizer.zero_grad()


def test_says_what_has_changed_since_a_checkpoint(place, done, caplog):
    expert = UpstreamPretrainExpert(data(place), place / "g1.yaml", "cpu")
    expert.load_model(read_pickle(place / "whole" / "states-15.ckpt"))
    config = {"runner": runner(gradient_accumulate_steps=2), "optimizer": {"name": "DPHuBERT", **STAGE1}}
    expert.prepare(config, place / "nowhere")
    assert len(caplog.messages) == 1
    assert "goes on after update 15 with micro-batches an update 2 (was 1)" in caplog.messages[0]


def test_models_of_removed_checkpoints_go_and_others_stay(place, tmp_path):
    model = tiny("hubert")
    for name in ("states-1", "states-2", "states-3"):
        save_model(model, tmp_path / name)
    for name in ("states-2", "states-3"):
        (tmp_path / f"{name}.ckpt").touch()
    (tmp_path / ".states-4.abc.part").mkdir()
    models = Models(tmp_path)
    assert not (tmp_path / ".states-4.abc.part").exists()
    (tmp_path / "states-2.ckpt").unlink()  # as the runner does
    models.write(3, model, "again")
    assert sorted(path.name for path in tmp_path.glob("states-?")) == ["states-1", "states-3"]
    assert (tmp_path / "states-3" / "README.md").read_text() == "again"
    (tmp_path / "states-5").mkdir()
    with pytest.raises(RunError, match="is in the way"):
        models.write(5, model, "")


def test_losses_that_are_not_finite_are_skipped_and_counted(place):
    """The runner steps on an infinite norm; the optimizer does not."""
    expert = prepared(place)
    expert.settings = replace(expert.settings, max_nonfinite=3)
    before = {name: tensor.clone() for name, tensor in expert.model.state_dict().items()}
    batch = next(iter(expert.get_train_dataloader()))
    batch = batch._replace(waveforms=torch.full_like(batch.waveforms, float("nan")))
    for step in (1, 2, 3):
        loss, _ = expert(batch, records=defaultdict(list), global_step=step, log_step=1)
        loss.backward()
        expert.optimizer.step()
        if step == 3:
            with pytest.raises(RunError, match="3 updates in a row"):
                expert.on_before_zero_grad()
        else:
            expert.on_before_zero_grad()
        expert.optimizer.zero_grad()
    assert expert.skipped == expert.step == 3
    assert same(before, expert.model.state_dict(), 85)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30])
def test_steps_whose_norm_overflowed_are_not_taken(value):
    """1e30 is finite, its square is not: clipping makes all gradients 0, and momentum would still move."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = GuardedAdamW([{"params": [parameter], "base_lr": 0.1}], 0, 10)
    for gradient, moved in ((1.0, True), (value, False), (1.0, True)):
        before = parameter.detach().clone()
        optimizer.schedule(0)
        parameter.grad = torch.tensor([gradient, 1.0, 1.0])
        torch.nn.utils.clip_grad_norm_([parameter], 10.0)
        optimizer.step()
        assert optimizer.stepped == moved == (not torch.equal(before, parameter))


def test_wrong_settings_are_all_named(place, tmp_path):
    def fails(match, **changes):
        (tmp_path / "g.yaml").write_text(yaml.safe_dump(upstream(place, **changes)))
        with pytest.raises(ConfigError, match=match):
            UpstreamPretrainExpert(data(place), tmp_path / "g.yaml", "cpu")

    fails(r"stage is 3, allowed: 1, 2; seed is -1", stage=3, seed=-1)
    fails("stage1 is missing, allowed in stage 2", stage=2)
    fails("stage1 is 'x', allowed in stage 1: null", stage1="x")
    fails("updates is not known", updates=3)
    with pytest.raises(ConfigError, match="--multi_gpu is given"):
        UpstreamPretrainExpert(data(place), place / "g1.yaml", "cpu", True)
    with pytest.raises(ConfigError, match="valid is given"):
        UpstreamPretrainExpert(data(place, valid="x.tsv"), place / "g1.yaml", "cpu")
    expert = UpstreamPretrainExpert(data(place), place / "g1.yaml", "cpu")
    wrong = {"runner": runner(save_step=20, precision="fp16"), "optimizer": {"name": "Adam", "beta": 1}}
    with pytest.raises(ConfigError) as error:
        expert.prepare(wrong | {"scheduler": {"name": "x"}}, tmp_path)
    for part in ("name is 'Adam'", "scheduler is given", "beta is not known", "'fp16'", "save_step is 20"):
        assert part in str(error.value)


def test_seed_is_that_of_s3prl_unless_given(place, tmp_path):
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(upstream(place, seed=None)))
    torch.manual_seed(77)
    expert = UpstreamPretrainExpert(data(place), tmp_path / "g.yaml", "cpu")
    assert expert.config.seed == expert.recipe.to_dict()["seed"] == 77


class Evil:
    def __reduce__(self):
        return (open, ("made-by-pickle", "w"))


def test_checkpoints_of_others_are_refused(place, done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"Downstream": {}, "Args": Evil()}, tmp_path / "states-1.ckpt")
    with pytest.raises(CheckpointError, match="not of run_pretrain -u dphubert"):
        dphubert_local(ckpt=tmp_path / "states-1.ckpt")
    content = read_pickle(place / "whole" / "states-20.ckpt")
    del content["DPHuBERT"]["module"]["student.gates.groups.heads.1.log_alpha"]
    content["Evil"] = Evil()
    torch.save(content, tmp_path / "states-2.ckpt")
    with pytest.raises(CheckpointError, match="its gates do not fit"):
        load_states(tmp_path / "states-2.ckpt")
    assert not (tmp_path / "made-by-pickle").exists()
    pickle.loads(pickle.dumps(Evil())).close()
    assert (tmp_path / "made-by-pickle").exists()  # it does what it should not, where it is let
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_states(tmp_path / "states-3.ckpt")
    with pytest.raises(CheckpointError, match=r"states-4\.ckpt beside it is missing"):
        find_states(tmp_path / "states-4")
    with pytest.raises(CheckpointError, match=r"no states-N\.ckpt there"):
        find_states(place / "teacher")
