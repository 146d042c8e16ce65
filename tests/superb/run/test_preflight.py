"""Report of a run on missing data, packages, disk and GPUs before it starts."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest

from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.superb.recipe import recipe_root
from s3prl_dphubert.superb.run import preflight
from s3prl_dphubert.superb.run.plan import RunPlan, choose
from s3prl_dphubert.superb.run.upstream_spec import UpstreamSpec
from s3prl_dphubert.superb.tasks import spec
from s3prl_dphubert.utils import resources
from tests.helpers.superb_runs import corpora, plan, recipe_folder, recipes

SHIPPED = resources.find("downstream_recipes")


def test_the_check_names_data_packages_disk_and_gpu(tmp_path, monkeypatch):
    real_usage = shutil.disk_usage(tmp_path)
    Usage = namedtuple("Usage", ("total", "used", "free"))
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: Usage(*real_usage[:2], int(1.5e9)))
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
    corpora(tmp_path / "data", ["ks"])
    ours = choose("ks", recipes(tmp_path / "recipes", ["ks"]))
    rows = preflight.check(RunPlan(UpstreamSpec("fbank"), ours, tmp_path / "data", tmp_path / "out"))
    assert rows[0].missing == rows[0].remarks == ()
    assert rows[0].cells[0] == "46 files"
    assert preflight.table(rows).endswith("nothing is missing")


def test_processes_that_would_train_on_the_same_batches_are_refused(tmp_path):
    for name, refused in (("se", True), ("ss", True), ("ks", False)):
        (row,) = preflight.check(plan(tmp_path, name, processes=2))
        said = "2 processes would train on the same batches, allowed: --processes 1" in row.missing
        assert said is refused


def test_the_advice_fits_the_recipe(tmp_path):
    (tmp_path / "data").mkdir()
    mini = choose("pr", recipe_root("free_superb"))
    (row,) = preflight.check(RunPlan(UpstreamSpec("fbank"), mini, tmp_path / "data", tmp_path / "out"))
    made = f"s3prl-dphubert free-superb --out {tmp_path / 'data'} --tasks pr makes it"
    assert any(each.endswith(made) for each in row.missing)


def test_former_recipes_say_what_they_are_called_now():
    with pytest.raises(ConfigError, match="--recipes is 'mini_superb', which is called free_superb now"):
        recipe_root("mini_superb")


def test_gpus_are_counted_elsewhere():
    assert all(memory > 0 for memory in preflight._gpu_memories())


def test_a_blocked_task_says_why(tmp_path):
    place = recipe_folder(tmp_path, needs={"blocked": "the moon is full; wait"})
    (tmp_path / "data").mkdir()
    recipes = choose("ks", place.parent)
    (row,) = preflight.check(RunPlan(UpstreamSpec("fbank"), recipes, tmp_path / "data", tmp_path / "out"))
    assert "the moon is full; wait" in row.missing
