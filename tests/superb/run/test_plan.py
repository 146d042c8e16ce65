"""Recipes, plans, what is missing and how far a run is: all that comes before and after s3prl."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError, ResultError, RunError
from s3prl_dphubert.superb.recipe import load
from s3prl_dphubert.superb.run import fingerprints, preflight, selection
from s3prl_dphubert.superb.run.feature_cache import FeatureCache
from s3prl_dphubert.superb.run.part_run import PartRun, TaskContext
from s3prl_dphubert.superb.run.plan import RunPlan, choose
from s3prl_dphubert.superb.run.run_files import format_rate
from s3prl_dphubert.superb.run.slots import Slot
from s3prl_dphubert.superb.run.status import status
from s3prl_dphubert.superb.run.upstream_spec import UpstreamSpec
from s3prl_dphubert.superb.run.workers import logs
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.superb.tasks import all_tasks, find, spec
from s3prl_dphubert.utils import resources
from tests.helpers.superb_runs import upstream

SHIPPED = resources.find("downstream_recipes")


def plan(folder, tasks="ks", **more):
    (folder / "data").mkdir(exist_ok=True)
    recipes = choose(tasks, None, more.pop("changes", ()))
    return RunPlan(UpstreamSpec("fbank"), recipes, folder / "data", folder / "out", **more)


def recipe_folder(folder, config=None, needs=None):
    """The shipped recipe of KS, changed."""
    place = folder / "recipes" / "ks"
    shutil.copytree(SHIPPED / "ks", place)
    for name, changes in (("config.yaml", config), ("recipe.yaml", needs)):
        values = yaml.safe_load((place / name).read_text())
        for key, value in (changes or {}).items():
            values[key] = {**values[key], **value} if isinstance(value, dict) else value
        (place / name).write_text(yaml.safe_dump(values))
    return place


# Recipes


def test_all_faults_of_a_recipe_are_told_at_once(tmp_path):
    place = recipe_folder(
        tmp_path,
        {
            "runner": {"total_steps": 10, "save_step": 3, "max_keep": 1, "eval_dataloaders": "dev"},
            "optimizer": {"lr": "1e-4"},
            "downstream_expert": {"place": "{date}/x"},
        },
        {"foo": 1, "data": ["/absolute"], "sweep": [0.1, -1], "disk_gb": "much", "blocked": 3},
    )
    with pytest.raises(ConfigError) as caught:
        load(place)
    for fault in (
        "foo: unknown field; available: data, prepare,",
        "data has '/absolute', allowed: a path below {data}",
        "sweep is (0.1, -1.0), allowed: a list of numbers above 0",
        "disk_gb is 'much'",
        "blocked is 3",
        "'{date}/x' has the placeholder {date}, allowed: {data}, {prepared}, {recipe}",
        "optimizer.lr is '1e-4', allowed: a number above 0 (1.0e-4, not 1e-4)",
        "runner.max_keep is 1, allowed: a whole number from 2, since s3prl deletes the old checkpoint",
        "runner.save_step is 3, allowed: a divisor of total_steps, 10",
        "runner.eval_dataloaders is 'dev', allowed: a list",
    ):
        assert fault in str(caught.value)


def test_a_recipe_of_no_task_or_without_a_file_is_refused(tmp_path):
    place = recipe_folder(tmp_path)
    with pytest.raises(ConfigError, match="unknown task 'xx'; available: PR"):
        load(place.rename(tmp_path / "recipes" / "xx"))
    (tmp_path / "recipes" / "xx" / "recipe.yaml").unlink()
    with pytest.raises(ConfigError, match=r"recipe\.yaml: not readable"):
        load((tmp_path / "recipes" / "xx").rename(tmp_path / "recipes" / "ks"))


def test_places_and_changes_are_filled_in():
    recipe = load(SHIPPED / "asr", ["asr.optimizer.lr=0.5", "pr.optimizer.lr=0.25", "runner.log_step=7"])
    config = recipe.config("", Path("/corpora"), Path("/made"))
    assert recipe.rate == config["optimizer"]["lr"] == 0.5
    assert config["runner"]["log_step"] == 7
    data = config["downstream_expert"]["datarc"]
    assert data["libri_root"] == "/corpora/LibriSpeech"
    assert data["bucket_file"] == "/made/lengths"
    assert data["dict_path"] == str(SHIPPED / "asr" / "letters.txt")


def test_tasks_are_chosen_by_name(tmp_path):
    assert [each.task.name for each in choose("superb")] == [
        t.name for t in all_tasks() if t.track == "SUPERB"
    ]
    assert [each.task.name for each in choose("all")] == [task.name for task in all_tasks()]
    assert [each.task.name for each in choose("sid,KS,sid")] == ["SID", "KS"]
    with pytest.raises(ResultError, match="unknown task 'kss'; available"):
        choose("kss")
    with pytest.raises(ResultError, match=r"no recipe of SID in .*, allowed: KS"):
        choose("sid", recipe_folder(tmp_path).parent)


# Plans


def test_all_faults_of_a_plan_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        replace(plan(tmp_path), data=tmp_path / "a=b", device="tpu", gpus=("0", "0"), jobs=0, seed=-1)
    for fault in (
        "a=b', allowed: a folder",
        "device is 'tpu', allowed: cuda, cpu",
        "jobs is 0",
        "seed is -1, allowed: 0 or more",
        "gpus is '0,0', allowed: numbers, each once",
        "a=b', allowed: without '=' and ',,'",
    ):
        assert fault in str(caught.value)


def test_jobs_get_a_gpu_or_several_or_none(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert plan(tmp_path, jobs=2).slots == [Slot("cpu"), Slot("cpu")]
    assert plan(tmp_path, device="cuda").slots == [Slot("cuda")]
    assert plan(tmp_path, device="cuda", gpus=("0", "2")).slots == [Slot("cuda", "0"), Slot("cuda", "2")]
    four = plan(tmp_path, device="cuda", gpus=("0", "1", "2", "3"), processes=2)
    assert four.slots == [Slot("cuda", "0,1", 2), Slot("cuda", "2,3", 2)]
    assert four.slots[1].environment == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert Slot("cuda").environment == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7a")
    assert plan(tmp_path, device="cuda", gpus=("1",)).slots == [Slot("cuda", "GPU-7a")]

    with pytest.raises(ConfigError, match="processes is 2, allowed: a divisor of the number of --gpus"):
        plan(tmp_path, device="cuda", gpus=("0", "1", "2"), processes=2)


def test_a_folder_belongs_to_one_upstream(tmp_path):
    first = plan(tmp_path, "ks,sid")
    first.write()
    plan(tmp_path, "er").write()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["tasks"] == ["KS", "SID", "ER"]
    with pytest.raises(RunError, match="holds results of fbank, not of other"):
        replace(first, upstream=UpstreamSpec("fbank", title="other")).write()


def part_of(plan, part=0):
    recipe = plan.recipes[0]
    return PartRun(TaskContext(plan, recipe, {}, None, None), recipe.task.parts[part])


def test_parts_and_rates_have_configurations_and_folders_of_their_own(tmp_path):
    fold = part_of(plan(tmp_path, "er"), 2)
    experiment = fold.experiment(1e-3)
    assert experiment.config["downstream_expert"]["datarc"]["test_fold"] == "fold3"
    assert experiment.config["optimizer"]["lr"] == 1e-3
    assert experiment.folder == tmp_path / "out" / "er" / "fold3" / "train-lr1e-03"
    assert fold.title(1e-3) == "er fold3 lr 1e-03"
    assert part_of(plan(tmp_path, "ks")).experiment().folder == tmp_path / "out" / "ks" / "train"
    spanish, chinese = (part_of(plan(tmp_path, "ood-asr"), index).config() for index in (0, 2))
    assert spanish["downstream_expert"]["metric"][0] == "wer"
    assert chinese["downstream_expert"]["metric"][0] == "cer"
    assert [format_rate(rate) for rate in (1e-1, 1e-7, 1.2e-4, 5e-5)] == [
        "1e-01",
        "1e-07",
        "0.00012",
        "5e-05",
    ]


def test_processes_share_the_batch_where_it_can_be_divided(tmp_path):
    def accumulated(task, count):
        gpus = tuple(map(str, range(count)))
        many = plan(tmp_path, task, device="cuda", gpus=gpus, processes=count)
        (row,) = preflight.check(many)
        return part_of(many).config()["runner"]["gradient_accumulate_steps"], " ".join(row.remarks)

    assert accumulated("er", 4) == (2, "")  # of 8
    steps, remarks = accumulated("er", 3)
    assert steps == 8
    assert "3 processes train with 3 times the recipe's batch" in remarks


def test_several_processes_are_started_on_their_gpus(tmp_path):
    class Recorder:
        def program(self, command, log, folder, environment, watch):
            self.command, self.environment = command, environment
            return ""

    launcher = Recorder()
    recipe = choose("ks")[0]
    many = plan(tmp_path, device="cuda", gpus=("1", "3"), processes=2)
    part = PartRun(TaskContext(many, recipe, {}, launcher, None), recipe.task.parts[0])
    with pytest.raises(RunError, match=r"ended without states-200000\.ckpt"):
        part.experiment().train(tmp_path / "train.log", many.slots[0])
    words = launcher.command
    assert words[1:5] == ["-m", "s3prl_dphubert.superb.run.workers.jobs", "several", "2"]
    assert words[5:9] == ["--backend", "nccl", "-m", "train"]
    assert words[-2:] == ["--device", "cuda"]
    assert launcher.environment == {"CUDA_VISIBLE_DEVICES": "1,3"}


# Upstreams


def test_an_upstream_counts_by_its_content(tmp_path):
    one, other = upstream(tmp_path / "a" / "model"), tmp_path / "b" / "model"
    shutil.copytree(one, other)
    options = tmp_path / "options.yaml"
    options.write_text("padding: exact\n")
    first = UpstreamSpec("dphubert_local", str(one), options)
    assert first.title == "a/model"
    assert first.arguments == ["-u", "dphubert_local", "-k", str(one), "-g", str(options)]
    assert first.paths == {"upstream_ckpt": str(one), "upstream_model_config": str(options)}
    assert UpstreamSpec("dphubert_local", str(other), options).content == first.content
    kept = tmp_path / "kept.yaml"
    kept.write_text("padding: exact\nfeatures: {cache: /x, limit: 1GB}\n")
    assert UpstreamSpec("dphubert_local", str(one), kept).content == first.content
    kept.write_text("padding: batch\n")
    assert UpstreamSpec("dphubert_local", str(one), kept).content != first.content
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    assert UpstreamSpec("dphubert_local", str(other), options).content != first.content


def test_wrong_upstreams_are_refused():
    with pytest.raises(ConfigError) as caught:
        UpstreamSpec("dphubert_local", "/nowhere", Path("/none.yaml"))
    assert "checkpoint is '/nowhere', allowed: a checkpoint on this machine" in str(caught.value)
    assert "options is '/none.yaml', allowed: a YAML file" in str(caught.value)
    with pytest.raises(ConfigError, match="name is '-x', allowed"):
        UpstreamSpec("-x")
    assert UpstreamSpec("dphubert_url", "https://a/b?c=d").paths == {}  # does not go through s3prl's -o


def test_hidden_states_are_kept_where_waveforms_come_again(tmp_path):
    own = UpstreamSpec("dphubert_local", str(upstream(tmp_path / "model")))
    cache = FeatureCache(tmp_path / "states", "5GB")
    features = {"cache": str(tmp_path / "states"), "limit": "5GB"}
    for name, trained, evaluated in (
        ("KS", features, features),
        ("SID", None, None),
        ("ASV", None, features | {"evaluation": True}),
    ):
        given = cache.upstreams(own, find(name), tmp_path)
        for one, wanted in zip(given, (trained, evaluated), strict=True):
            options = yaml.safe_load(one.options.read_text())
            assert options.pop("padding") == "exact"
            assert options.get("features") == wanted
    with pytest.raises(ConfigError, match="upstream is fbank, allowed: dphubert"):
        cache.upstreams(UpstreamSpec("fbank"), find("KS"), tmp_path)
    batch = tmp_path / "batch.yaml"
    batch.write_text("padding: batch\n")
    with pytest.raises(ConfigError, match="options have padding: batch, allowed: exact"):
        cache.upstreams(replace(own, options=batch), find("KS"), tmp_path)


def test_the_check_says_which_tasks_keep_none(tmp_path):
    rows = preflight.check(plan(tmp_path, "ks,sid,asv", cache=FeatureCache(tmp_path / "states")))
    remarks = {row.task: " ".join(row.remarks) for row in rows}
    assert remarks["KS"] == ""
    assert remarks["SID"].startswith("hidden states are not kept, since in training s3prl cuts 8 s")
    assert remarks["ASV"].startswith("hidden states are not kept, since in training s3prl cuts 8 s")


# What is missing


def test_the_check_names_data_packages_disk_and_gpu(tmp_path, monkeypatch):
    found = shutil.disk_usage(tmp_path)
    Usage = namedtuple("Usage", ("total", "used", "free"))
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: Usage(*found[:2], int(1.5e9)))
    monkeypatch.setattr(spec, "_is_missing", lambda module: module in ("librosa", "sklearn"))
    monkeypatch.setattr(preflight, "_gpu_memories", lambda: [80.0])
    (row,) = preflight.check(plan(tmp_path, "asv", device="cuda", gpus=("3",)))
    assert row.cells == ("2 of 2 missing", "2 missing", "full", "missing")
    page = SHIPPED / "asv" / "README.md"
    wanted = (
        f"put VoxCeleb1/dev/wav, VoxCeleb1/test/wav below {tmp_path / 'data'}; {page} says where to get it",
        "pip install librosa scikit-learn",
        f"{tmp_path / 'out'} has 1.5 GB left, 2 GB are needed",
        "GPU 3 is not there; --device cpu works, for small tests in reasonable time",
    )
    assert row.missing == wanted
    text = preflight.table([row])
    assert text.splitlines()[0].split() == list(preflight.COLUMNS)
    assert all(f"ASV: {each}" in text for each in wanted)
    assert text.endswith("left out: ASV")


def test_room_for_data_that_is_to_come_and_small_gpus_are_told(tmp_path, monkeypatch):
    place = recipe_folder(tmp_path, needs={"disk_gb": 100, "gpu_gb": 40.0, "prepare": ["nothing"]})
    Usage = namedtuple("Usage", ("total", "used", "free"))
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: Usage(0, 0, int(50e9)))
    monkeypatch.setattr(preflight, "_gpu_memories", lambda: [16.0])
    (tmp_path / "data").mkdir()
    recipes = choose("ks", place.parent)
    (row,) = preflight.check(
        RunPlan(UpstreamSpec("fbank"), recipes, tmp_path / "data", tmp_path / "out", device="cuda")
    )
    assert row.cells[2:] == ("100 GB to come", "16 GB")
    assert f"{tmp_path / 'data'} has 50 GB left, the data takes 100 GB" in row.missing
    assert any(each.startswith("its recipe prepares nothing, allowed: ") for each in row.missing)
    assert row.remarks == ("needs about 40 GB of GPU memory, 16 GB are there",)


def test_nothing_is_missing_where_all_is_there(tmp_path, monkeypatch):
    for name in choose("ks")[0].needs.data:
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
    rows = preflight.check(plan(tmp_path))
    assert rows[0].missing == rows[0].remarks == ()
    assert preflight.table(rows).endswith("nothing is missing")


def test_gpus_are_counted_elsewhere():
    assert all(memory > 0 for memory in preflight._gpu_memories())


def test_a_blocked_task_says_why(tmp_path):
    place = recipe_folder(tmp_path, needs={"blocked": "the moon is full; wait"})
    (tmp_path / "data").mkdir()
    recipes = choose("ks", place.parent)
    (row,) = preflight.check(RunPlan(UpstreamSpec("fbank"), recipes, tmp_path / "data", tmp_path / "out"))
    assert "the moon is full; wait" in row.missing


# What was chosen


def test_what_is_best():
    assert selection.best({"a": 1.0, "b": 3.0, "c": 3.0}, higher=True) == "b"
    assert selection.best({"a": float("nan"), "b": 3.0, "c": 2.0}, higher=False) == "c"
    lower = {"PR", "ASR", "ASV", "VC", "OOD-ASR"}
    for task in all_tasks():
        assert (selection.rate(task, {1.0: 0.0, 2.0: 1.0}) == 2.0) == (task.name not in lower), task.name
    assert {task.name for task in all_tasks() if selection.compared_on(task) != selection.ON_DEV} == {
        "ASV",
        "VC",
    }


def test_lists_count_by_content_and_corpora_do_not(tmp_path):
    own, corpus = tmp_path / "made", tmp_path / "corpus"
    for folder in (own / "lists", corpus):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("1")
        (folder / "a.wav").write_text("audio")
    config = {"x": {"root": str(corpus), "lists": [str(own / "lists")], "file": str(corpus / "a.txt")}}
    first = fingerprints.digests(config, [own])
    assert set(first) == {str(own / "lists"), str(corpus / "a.txt")}
    (own / "lists" / "a.wav").write_text("other audio")
    (own / "lists" / ".mark.json").write_text("when")
    assert fingerprints.digests(config, [own]) == first
    (own / "lists" / "a.txt").write_text("2")
    assert fingerprints.digests(config, [own])[str(own / "lists")] != first[str(own / "lists")]
    assert str(corpus / "a.wav") in fingerprints.digests(config, [own], [corpus / "a.wav", corpus])


# How far a run is


def states(out):
    return [(state.name, state.state, state.text) for state in status(out)]


def test_status_tells_waiting_running_failed_and_done(tmp_path):
    plan(tmp_path, "ks,er,sid").write()
    out = tmp_path / "out"
    folds = [(f"er fold{number}", "waiting", "") for number in range(1, 6)]
    assert states(out) == [("ks", "waiting", ""), ("sid", "waiting", ""), *folds]

    train = out / "ks" / "train-lr1e-03"
    train.mkdir(parents=True)
    made_from = {"config": {"runner": {"total_steps": 200}}}
    (train / "state.json").write_text(json.dumps({"made_from": made_from}))
    (train / "states-50.ckpt").write_bytes(b"")
    assert states(out)[0] == ("ks lr 1e-03", "stopped", "at step 50 of 200")
    bar = "overall:  30%|###       | 60/200 [00:10<00:23,  6.00it/s]"
    with logs.own(out / "ks" / "train-lr1e-03.log") as log:
        assert states(out)[0] == ("ks lr 1e-03", "running", "trains, begins")
        log.write(bar.encode())
        log.flush()
        assert states(out)[0] == ("ks lr 1e-03", "running", "trains, 60 of 200, 6.00it/s, 00:23 left")
    (train / "states-200.ckpt").write_bytes(b"")
    assert states(out)[0] == ("ks lr 1e-03", "stopped", "trained, to be evaluated")
    with logs.own(out / "ks" / "evaluate.log") as log:
        assert states(out)[0] == ("ks", "running", "evaluates")

    (out / "er" / "fold2").mkdir(parents=True)
    failed = {
        "what": "er fold2",
        "error": "s3prl ended with status 1; the last lines of x:\nTraceback\nOops: no",
    }
    (out / "er" / "fold2" / "failed.json").write_text(json.dumps(failed))
    assert ("er fold2", "failed", "Oops: no") in states(out)

    made = score_file.ScoreRecord(
        "SID", "fbank", {"acc": 81.42}, 0, 1e-4, "0.4.18", "2026-11-24T10:00:00", "x"
    )
    score_file.write(made, out / "sid")
    assert ("sid", "done", "acc 81.42") in states(out)


def test_status_while_data_are_prepared_and_after_that_failed(tmp_path):
    plan(tmp_path, "er").write()
    folder = tmp_path / "out" / "er"
    folder.mkdir()
    with logs.own(folder / "prepare.log") as log:
        log.write(b"lexicon:  50%|#####     | 5/10 [00:10<00:10,  2.00s/it]")
        log.flush()
        assert states(tmp_path / "out") == [("er", "running", "prepares 5 of 10, 2.00s/it, 00:10 left")]
    (folder / "failed.json").write_text(json.dumps({"what": "preparation", "error": "no such folder"}))
    assert states(tmp_path / "out") == [("er", "failed", "no such folder")]


def test_status_of_another_folder_is_refused(tmp_path, capsys):
    assert main(["superb", "status", str(tmp_path)]) == 2
    assert "is no folder of a run; it holds no run.json" in capsys.readouterr().err


def test_wrong_arguments_are_one_line(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    start = [
        "superb",
        "run",
        "--upstream",
        "fbank",
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "o"),
    ]
    for more, message in (
        (["--sweep", "rate"], "--sweep is 'rate', allowed: lr, or lr=1e-3,1e-4"),
        (["--sweep", "lr=x"], "--sweep is 'lr=x'"),
        (["--sweep", "lr=-1"], "rates is (-1.0,), allowed: numbers above 0"),
        (["--tasks", "kss"], "unknown task 'kss'; available: PR"),
        (["--set", "nonsense"], "--set is 'nonsense', allowed: FIELD=VALUE"),
        (["--set", "runner.max_keep=1"], "runner.max_keep is 1, allowed: a whole number from 2"),
        (["--device", "tpu"], "device is 'tpu', allowed: cuda, cpu"),
    ):
        assert main([*start, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
