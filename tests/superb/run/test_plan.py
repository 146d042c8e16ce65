"""Recipes and plans of a run, and what its results are made from: all that comes before s3prl."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from s3prl_dphubert.checkpoints.hub import HubRepository
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError, ResultError, RunError
from s3prl_dphubert.superb.recipe import load
from s3prl_dphubert.superb.run import fingerprints, preflight, selection
from s3prl_dphubert.superb.run.feature_cache import FeatureCache, is_ours
from s3prl_dphubert.superb.run.part_run import PartRun, TaskContext
from s3prl_dphubert.superb.run.plan import choose
from s3prl_dphubert.superb.run.progress import Reporter
from s3prl_dphubert.superb.run.run_files import format_rate
from s3prl_dphubert.superb.run.slots import Slot
from s3prl_dphubert.superb.run.upstream_spec import UpstreamSpec
from s3prl_dphubert.superb.tasks import all_tasks, find
from s3prl_dphubert.utils import resources
from tests.helpers.superb_runs import plan, recipe_folder, upstream

SHIPPED = resources.find("downstream_recipes")


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
    with pytest.raises(ConfigError, match=r"recipe\.yaml: no such file"):
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


def test_other_upstreams_get_the_learning_rates_of_s3prl(tmp_path):
    own = {recipe.task.name: recipe.rate for recipe in choose("superb")}
    other = {recipe.task.name: recipe.rate for recipe in choose("superb", own_upstream=False)}
    assert {name: rate for name, rate in other.items() if rate != own[name]} == {
        "PR": 1e-2,
        "SID": 1e-4,
        "ASV": 1e-4,
        "SD": 1e-4,
    }
    (given,) = choose("pr", None, ["optimizer.lr=0.5"], own_upstream=False)
    assert given.rate == 0.5
    (row,) = preflight.check(replace(plan(tmp_path, "sid"), recipes=choose("sid", own_upstream=False)))
    assert row.remarks == ("learning rate 0.0001, s3prl's own; models of this package get another one",)


def test_verification_tries_the_ten_checkpoints_that_superb_tries(tmp_path):
    part = part_of(plan(tmp_path, "asv"))
    folder = part.experiment().folder
    folder.mkdir(parents=True)
    for step in range(10_000, 200_001, 10_000):
        with zipfile.ZipFile(folder / f"states-{step}.ckpt", "w"):
            pass
    tried = [path.name for path in selection.saved(find("asv"), part.experiment())]
    assert tried == [f"states-{step}.ckpt" for step in range(20_000, 200_001, 20_000)]


def test_other_total_steps_are_saved_at_a_divisor():
    (recipe,) = choose("ks", None, ["ks.runner.total_steps=40"])
    runner = recipe.configs[""]["runner"]
    assert (runner["total_steps"], runner["save_step"], runner["eval_step"]) == (40, 40, 40)
    with pytest.raises(
        ConfigError, match=r"runner\.save_step is 1000, allowed: a divisor of total_steps, 1500"
    ):
        choose("ks", None, ["runner.total_steps=1500", "runner.save_step=1000"])


def test_options_without_effect_on_the_device_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="gpus is '0,1', allowed: none on the CPU, and torch sees no GPU"):
        plan(tmp_path, gpus=("0", "1"))
    with pytest.raises(ConfigError, match="jobs is 2, allowed: 1 with GPUs, of which --gpus 0,1 runs"):
        plan(tmp_path, jobs=2, device="cuda")


def test_a_rate_may_be_written_without_a_point():
    assert choose("ks", None, ["optimizer.lr=1e-3"])[0].rate == 1e-3


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


def test_a_training_of_an_earlier_version_is_refused(tmp_path):
    """It has no record of the audio that it was trained on, so that nobody can tell what it is of."""
    experiment = part_of(plan(tmp_path)).experiment()
    experiment.folder.mkdir(parents=True)
    with zipfile.ZipFile(experiment.folder / "states-1000.ckpt", "w"):
        pass
    old = {name: value for name, value in experiment.inputs.items() if name not in ("version", "audio")}
    (experiment.folder / "state.json").write_text(json.dumps({"made_from": old}))
    with pytest.raises(RunError, match=r"ks/train: was made by an earlier version .*; choose another --out"):
        experiment.claim()


@pytest.mark.slow
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


class Failing:
    """A launcher whose processes fail, as on a full disk."""

    def run(self, *_):
        raise RunError("basic_ios::clear: iostream error")


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    recipe = choose("ks")[0]
    part = PartRun(TaskContext(plan(tmp_path), recipe, {}, Failing(), None), recipe.task.parts[0])
    with pytest.raises(RunError, match=r"^basic_ios"):
        part.experiment().train(tmp_path / "train.log", Slot())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=3_000_000))
    with pytest.raises(RunError, match=rf"^{tmp_path}: the disk is full, 3 MB are left; basic_ios"):
        part.experiment().train(tmp_path / "train.log", Slot())


def test_batches_left_out_for_lack_of_memory_are_counted(tmp_path):
    class Trained:
        def run(self, job, arguments, log, *_):
            log.write_text("[Runner] - CUDA out of memory at step 7\n" * 3)
            with zipfile.ZipFile(tmp_path / "out" / "ks" / "train" / "states-200000.ckpt", "w"):
                return ""

    recipe, out = choose("ks")[0], io.StringIO()
    context = TaskContext(plan(tmp_path), recipe, {}, Trained(), Reporter(out))
    PartRun(context, recipe.task.parts[0]).train(Slot())
    assert out.getvalue().rstrip().endswith(", 3 batches left out for lack of GPU memory")


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
    caching_options = tmp_path / "kept.yaml"
    caching_options.write_text("padding: exact\nfeatures: {cache: /x, limit: 1GB}\n")
    rounded = UpstreamSpec("dphubert_local", str(one), caching_options).content
    assert rounded != first.content  # hidden states that are kept are rounded to float16
    caching_options.write_text("padding: exact\nfeatures: {cache: /y, limit: 2GB, evaluation: true}\n")
    assert UpstreamSpec("dphubert_local", str(one), caching_options).content == rounded
    caching_options.write_text("padding: batch\n")
    assert UpstreamSpec("dphubert_local", str(one), caching_options).content != first.content
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    assert UpstreamSpec("dphubert_local", str(other), options).content != first.content


def test_a_name_of_the_user_counts_by_what_it_stands_for(tmp_path, monkeypatch):
    model, names = upstream(tmp_path / "model"), tmp_path / "upstreams.yaml"
    monkeypatch.setenv("S3PRL_DPHUBERT_UPSTREAMS", str(names))
    names.write_text(f"my_model: {{ckpt: {model}, padding: exact}}\n")
    first = UpstreamSpec("my_model")
    assert first.arguments == ["-u", "my_model"] and first.title == "my_model"
    options = tmp_path / "options.yaml"
    options.write_text("padding: exact\n")
    plain = UpstreamSpec("dphubert_local", str(model), options).content
    assert first.content == plain | {"name": "my_model"}
    options.write_text("padding: batch\n")
    assert UpstreamSpec("my_model", options=options).content["options"] == {"padding": "batch"}
    assert is_ours("my_model") and is_ours("dphubert_hub") and not is_ours("my_other")
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    assert UpstreamSpec("my_model").content != first.content


def test_a_repository_counts_by_its_commit(monkeypatch):
    def pinned(self, filename):
        return HubRepository(self.name, commit[filename])

    monkeypatch.setattr(HubRepository, "pinned", pinned)
    commit = {"config.json": "a" * 40, "model.pth": "b" * 40}
    assert UpstreamSpec("dphubert_hub", "user/repo").content["checkpoint"] == f"user/repo@{'a' * 40}"
    assert UpstreamSpec("dphubert_hub", "user/repo/model.pth").content["checkpoint"].endswith("@" + "b" * 40)
    assert UpstreamSpec("dphubert_hub", "user/repo@main").content["checkpoint"] == "user/repo@main"


def test_queries_share_the_processors_with_other_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    alone, beside = (part_of(plan(tmp_path, "qbe", jobs=jobs)) for jobs in (1, 4))
    assert alone.config()["downstream_expert"]["max_workers"] is None
    assert beside.config()["downstream_expert"]["max_workers"] == 3
    assert beside.experiment().inputs == alone.experiment().inputs


def test_a_precision_that_depends_on_the_machine_is_refused(tmp_path, monkeypatch):
    refusal = "precision is 'auto', allowed for scores, which no machine may change: fp32, bf16, fp16"
    options, names = tmp_path / "options.yaml", tmp_path / "upstreams.yaml"
    options.write_text("precision: auto\n")
    with pytest.raises(ConfigError, match=refusal):
        UpstreamSpec("fbank", options=options)
    names.write_text("my_model: {ckpt: runs/model, precision: auto}\n")
    monkeypatch.setenv("S3PRL_DPHUBERT_UPSTREAMS", str(names))
    with pytest.raises(ConfigError, match=refusal):
        UpstreamSpec("my_model")
    options.write_text("precision: bf16\n")
    assert UpstreamSpec("my_model", options=options).content["options"] == {"precision": "bf16"}


def test_wrong_upstreams_are_refused():
    with pytest.raises(ConfigError) as caught:
        UpstreamSpec("dphubert_local", "/nowhere", Path("/none.yaml"))
    assert "checkpoint is '/nowhere', allowed: a path, a teacher's name or a Hub id" in str(caught.value)
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


# What was chosen


def test_what_is_best():
    assert selection.best({"a": 1.0, "b": 3.0, "c": 3.0}, higher=True) == "b"
    assert selection.best({"a": float("nan"), "b": 3.0, "c": 2.0}, higher=False) == "c"
    lower = {"PR", "ASR", "ASV", "VC", "OOD-ASR"}
    for task in all_tasks():
        if task.can_sweep:
            scores = {1.0: 0.0, 2.0: 1.0, 3.0: 0.5}
            ordered = [2.0, 3.0] if task.name not in lower else [1.0, 3.0]
            assert selection.rates(task, scores, 2) == ordered, task.name
    # these compare checkpoints on the test set, and one has no training
    assert {t.name for t in all_tasks() if not t.can_sweep} == {"ASV", "VC", "QbE"}


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


def test_files_that_s3prl_adds_to_what_was_prepared_do_not_count(tmp_path):
    """VC keeps statistics of each speaker there, one part's training after another's."""
    lists = tmp_path / "made" / "lists"
    lists.mkdir(parents=True)
    (lists / "a.txt").write_text("1")
    (tmp_path / "made" / ".step.json").write_text(json.dumps({"key": "k", "made": {"lists/a.txt": 1}}))
    config = {"root": str(tmp_path / "made"), "lists": str(lists), "stats": str(tmp_path / "made" / "stats")}
    first = fingerprints.digests(config, [tmp_path / "made"])
    (tmp_path / "made" / "stats").mkdir()
    (tmp_path / "made" / "stats" / "TEF1.h5").write_text("mean")
    (lists / "b.txt").write_text("2")
    assert fingerprints.digests(config, [tmp_path / "made"]) == first
    assert set(first) == {str(tmp_path / "made"), str(lists)}


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
        (["--device", "cpu", "--gpus", "0,1"], "gpus is '0,1', allowed: none on the CPU"),
        (
            ["--recipes", "nowhere"],
            "--recipes is 'nowhere', no such folder; allowed: a folder of recipes, or free_",
        ),
        (
            ["--cache-features", str(tmp_path / "c"), "--cache-limit", "0"],
            "limit is '0GB', allowed: bytes, or a size",
        ),
        (["--sweep-steps", "9"], "sweep_steps is 9, allowed: only with a sweep"),
    ):
        assert main([*start, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
