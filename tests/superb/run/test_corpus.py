"""The audio of a task is checked before anything is trained, and results depend on it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import soundfile

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.superb.prepare import STEPS
from s3prl_dphubert.superb.run import corpus, preflight
from s3prl_dphubert.superb.run.part_run import PartRun, TaskContext
from s3prl_dphubert.superb.run.plan import RunPlan, choose
from s3prl_dphubert.superb.run.upstream_spec import UpstreamSpec
from s3prl_dphubert.superb.tasks import find
from tests.helpers import superb_runs
from tests.helpers.s3prl_tasks import TASKS as MINIATURES
from tests.helpers.superb_runs import corpora

CHECKED = {
    "pr": 20,
    "asr": 20,
    "ks": 31,
    "qbe": 8,
    "sid": 36,
    "asv": 36,
    "er": 20,
    "ic": 16,
    "sf": 10,
    "sd": 8,
}
"""Files that each miniature task reads."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "own"))


def miniature(name, folder):
    return find(name), MINIATURES[name](folder).config


@pytest.mark.parametrize("name", CHECKED)
def test_hidden_files_are_no_audio(name, tmp_path):
    """macOS leaves a small ``._NAME`` beside each file that it copies to a foreign disk."""
    task, config = miniature(name, tmp_path / "corpus")
    before = corpus.check(task, config)
    assert before.files == CHECKED[name] and not before.deviations
    for path in list((tmp_path / "corpus").rglob("*.*")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    assert corpus.check(task, config).key == before.key


@pytest.mark.parametrize("name", ["ic", "sid", "pr", "sd"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
def test_a_file_that_cannot_be_used_is_named(name, damage, tmp_path):
    task, config = miniature(name, tmp_path / "corpus")
    split = "train" if name == "pr" else "test"  # PR lists the files that it finds
    path = corpus.list_audio(task, config)[split][0]
    if damage == "missing" and name == "pr":
        return
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"no audio at all " * 100)
    with pytest.raises(DataError) as caught:
        corpus.check(task, config)
    shown = path.name if damage == "missing" else str(path)  # SID may look in either part
    assert shown in str(caught.value)
    assert str(caught.value).startswith(f"{split}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ic", "pr"])
def test_a_file_that_is_cut_short_is_named(name, tmp_path):
    task, config = miniature(name, tmp_path / "corpus")
    path = corpus.list_audio(task, config)["train"][0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for _ in range(2):  # the second time from the cache
        (deviation,) = corpus.check(task, config).deviations
        assert deviation.startswith(f"train has files that are cut short: {path}: ")


def test_test_sets_come_first(tmp_path, monkeypatch):
    read = []
    measure = corpus.measure
    monkeypatch.setattr(corpus, "measure", lambda files, title: read.append(title) or measure(files, title))
    for name, order in (("ic", ["test", "valid", "train"]), ("asr", ["test-clean", "dev-clean", "train"])):
        corpus.check(*miniature(name, tmp_path / name))
        assert read == [f"{name.upper()} {split}" for split in order]
        read.clear()


def plan(folder, tasks, recipes=None, **more):
    return RunPlan(UpstreamSpec("fbank"), choose(tasks, recipes), folder / "data", folder / "out", **more)


def test_half_a_corpus_is_refused_with_its_counts(tmp_path):
    corpora(tmp_path / "data", ["ks", "sid"])
    rows = {row.task: row for row in preflight.check(plan(tmp_path, "ks,sid"))}
    (missing,) = rows["KS"].missing
    assert "test has 6 files, SUPERB's has 3081; train and dev has 40 files, SUPERB's has 64727" in missing
    assert "--any-count" in missing
    assert "test has 12 files, SUPERB's has 8251" in rows["SID"].missing[0]
    assert rows["SID"].cells[0] == "faulty"
    accepted = preflight.check(plan(tmp_path, "ks", any_count=True))[0]
    assert not accepted.missing
    assert accepted.remarks[0].startswith("excluded from the score: test has 6 files")


def test_the_check_names_a_missing_test_file(tmp_path):
    corpora(tmp_path / "data", ["sid"])
    shutil.rmtree(tmp_path / "data" / "VoxCeleb1" / "test" / "wav" / "id10002" / "video")
    recipes = superb_runs.recipes(tmp_path / "recipes", ["sid"])
    (row,) = preflight.check(plan(tmp_path, "sid", recipes))
    named = r"test: .*/id10002/video/00004\.wav and 1 more: no such file, though the corpus's lists name it"
    assert re.fullmatch(named, row.missing[0])


def test_counts_of_the_recipes_are_those_of_the_submission():
    """Where both know them, but for ASV, which is scored by trials, and ER, whose folds are sessions."""
    compared = 0
    for recipe in choose("all"):
        tests = {count for name, count in recipe.needs.counts.items() if name.startswith("test")}
        known = {prediction.count for prediction in recipe.task.predictions if prediction.count}
        if tests and known:
            assert tests == known, recipe.task.name
            compared += 1
        if recipe.task.name == "ER":
            assert set(recipe.needs.counts.values()) == known
    assert compared == 6
    assert choose("asv")[0].needs.counts == {"train": 148642}
    mini = choose("all", Path(superb_runs.resources.find("downstream_recipes/free_superb")))
    assert not any(recipe.needs.counts for recipe in mini)


def inputs(folder, task, recipes):
    """Prepare and check a task, and return the inputs on which its result depends."""
    context = TaskContext(plan(folder, task, recipes), choose(task, recipes)[0], {}, None, None)
    part = PartRun(context, context.task.parts[0])
    for name in context.recipe.needs.prepare:
        STEPS[name](context.plan.data, context.plan.prepared(context.recipe), part.config())
    part.check_corpus()
    return part.experiment().inputs


@pytest.mark.parametrize("task", ["ks", "sd", "sid", "asr", "er", "ss"])
def test_results_depend_on_content_and_not_on_places(task, tmp_path):
    recipes = superb_runs.recipes(tmp_path / "recipes", [task])
    corpora(tmp_path / "here" / "data", [task])
    first = inputs(tmp_path / "here", task, recipes)
    assert first["audio"] and str(tmp_path) not in str(first)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = recipes.rename(tmp_path / "elsewhere")
    assert inputs(tmp_path / "there", task, moved) == first
    (tmp_path / "linked" / "data").mkdir(parents=True)
    for path in (tmp_path / "there" / "data").iterdir():
        (tmp_path / "linked" / "data" / path.name).symlink_to(path)
    assert inputs(tmp_path / "linked", task, moved) == first

    audio = (tmp_path / "there" / "data").rglob("*.*")
    path = min(path for path in audio if path.suffix in (".wav", ".flac") and path.stem != "hiss")
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[:-100], rate)
    assert inputs(tmp_path / "there", task, moved) != first
