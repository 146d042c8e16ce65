"""The expert that s3prl's pretraining runner trains, alone."""

from __future__ import annotations

import copy
import pickle
from argparse import Namespace
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
import yaml

from s3prl_dphubert import load_model, save_model
from s3prl_dphubert.checkpoints.s3prl_states import read_states
from s3prl_dphubert.errors import CheckpointError, ConfigError, RunError
from s3prl_dphubert.model.state_dict import load_weights_only
from s3prl_dphubert.pretrain.expert import UpstreamPretrainExpert
from s3prl_dphubert.pretrain.runner_adapters import GuardedAdamW
from s3prl_dphubert.pretrain.runner_checkpoint import Models, find_states
from s3prl_dphubert.upstream.entries import dphubert_local
from tests.helpers.models import tiny
from tests.helpers.pretraining_runs import BUDGET, STAGE1, STAGE2, data, make_place, runner, same, upstream


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("pretrain"))


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
    saved = load_weights_only(tmp_path / "states-1.ckpt")
    again = UpstreamPretrainExpert(data(place), saved["Upstream_Config"], "cpu")
    again.load_model(saved)
    again.prepare(config, tmp_path)
    again.optimizer.load_state_dict(copy.deepcopy(expert.optimizer.state_dict()))
    for each in (expert, again):
        update(each.train(), 2)
        assert each.step == 2
    assert same(expert.model.state_dict(), again.model.state_dict(), len(saved["DPHuBERT"]["module"]))
    assert not hasattr(saved["Args"], "override")  # or else it would replace what is given at resumption


def saved(place, folder):
    """Return the content of a checkpoint of stage 1 after an update."""
    folder.mkdir(exist_ok=True)
    expert = prepared(place, folder)
    update(expert.train(), 1)
    torch.save(expert.add_state_to_save({"Args": Namespace(), "Step": 0}), folder / "states-1.ckpt")
    assert load_model(folder / "states-1.ckpt").config == load_model(folder / "states-1").config
    return load_weights_only(folder / "states-1.ckpt")


def update(expert, step):
    """One update, in the runner's order."""
    batch = next(iter(expert.get_train_dataloader()))
    expert(batch, records=defaultdict(list), global_step=step, log_step=1)[0].backward()
    torch.nn.utils.clip_grad_norm_(expert.model.parameters(), 10.0)
    expert.optimizer.step()
    expert.on_before_zero_grad()
    expert.optimizer.zero_grad()


def test_says_what_has_changed_since_a_checkpoint(place, tmp_path, caplog):
    content = saved(place, tmp_path)
    expert = UpstreamPretrainExpert(data(place), place / "g1.yaml", "cpu")
    expert.load_model(content)
    config = {"runner": runner(gradient_accumulate_steps=2), "optimizer": {"name": "DPHuBERT", **STAGE1}}
    expert.prepare(config, place / "nowhere")
    assert len(caplog.messages) == 1
    assert "goes on after update 1 with micro-batches an update 2 (was 1)" in caplog.messages[0]


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
    fails("updates: unknown field", updates=3)
    with pytest.raises(ConfigError, match="--multi_gpu is given"):
        UpstreamPretrainExpert(data(place), place / "g1.yaml", "cpu", True)
    with pytest.raises(ConfigError, match=r"valid is 'x\.tsv', allowed: null"):
        UpstreamPretrainExpert(data(place, valid="x.tsv"), place / "g1.yaml", "cpu")
    expert = UpstreamPretrainExpert(data(place), place / "g1.yaml", "cpu")
    wrong = {"runner": runner(save_step=20, precision="fp16"), "optimizer": {"name": "Adam", "beta": 1}}
    with pytest.raises(ConfigError) as error:
        expert.prepare(wrong | {"scheduler": {"name": "x"}}, tmp_path)
    for part in (
        "name is 'Adam'",
        "scheduler is given",
        "optimizer.beta: unknown field",
        "'fp16'",
        "save_step is 20",
    ):
        assert part in str(error.value)


def test_a_missing_gpu_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device is 'cuda:0', and torch sees no GPU here; allowed: cpu"):
        UpstreamPretrainExpert({"train": "missing.tsv"}, tmp_path / "missing.yaml", "cuda:0")


def test_a_budget_that_stage_1_does_not_reach(place, tmp_path):
    """A warm-up longer than the stage is refused, and so is stage 2 after gates far from their target."""
    expert = UpstreamPretrainExpert(data(place), place / "g1.yaml", "cpu")
    config = {"optimizer": {"name": "DPHuBERT", **STAGE1}, "runner": runner(total_steps=3, save_step=2)}
    with pytest.raises(ConfigError, match=r"budget\.warmup is 4, allowed: 0 to the 3 steps of the runner"):
        expert.prepare(config, tmp_path)
    saved(place, tmp_path / "one")
    recipe = upstream(place, stage=2, stage1=str(tmp_path / "one"))
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(recipe | {"budget": {**BUDGET, "tolerance": 0.05}}))
    with pytest.raises(
        RunError, match=r"budget\.sparsity\.parameters is 0\.4, but the gates expect 0\.[0-3]"
    ):
        UpstreamPretrainExpert(data(place), tmp_path / "g.yaml", "cpu")
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(recipe))
    assert UpstreamPretrainExpert(data(place), tmp_path / "g.yaml", "cpu").updates1 == 1


def test_seed_is_that_of_s3prl_unless_given(place, tmp_path):
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(upstream(place, seed=None)))
    torch.manual_seed(77)
    expert = UpstreamPretrainExpert(data(place), tmp_path / "g.yaml", "cpu")
    assert expert.config.seed == expert.recipe.to_dict()["seed"] == 77


class Evil:
    def __reduce__(self):
        return (open, ("made-by-pickle", "w"))


def test_checkpoints_of_others_are_refused(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"Downstream": {}, "Args": Evil()}, tmp_path / "states-1.ckpt")
    with pytest.raises(CheckpointError, match=r"holds Downstream, Args; expected .*run_pretrain -u dphubert"):
        dphubert_local(ckpt=tmp_path / "states-1.ckpt")
    content = saved(place, tmp_path / "own")
    del content["DPHuBERT"]["module"]["student.gates.groups.heads.1.log_alpha"]
    content["Evil"] = Evil()
    torch.save(content, tmp_path / "states-2.ckpt")
    with pytest.raises(CheckpointError, match="its gates do not fit"):
        load_model(tmp_path / "states-2.ckpt")
    assert not (tmp_path / "made-by-pickle").exists()
    pickle.loads(pickle.dumps(Evil())).close()
    assert (tmp_path / "made-by-pickle").exists()  # it does what it should not, where it is let
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_states(tmp_path / "states-3.ckpt")
    with pytest.raises(CheckpointError, match=r"states-4\.ckpt beside it is missing"):
        find_states(tmp_path / "states-4")
    with pytest.raises(CheckpointError, match=r"no states-N\.ckpt there"):
        find_states(place / "teacher")
