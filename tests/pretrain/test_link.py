"""A checkout of s3prl with our folders in it, and without them again."""

from __future__ import annotations

import runpy
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from s3prl_dphubert import load_model, save_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.data.manifest import scan, write
from s3prl_dphubert.errors import RunError
from s3prl_dphubert.pretrain.launch import RECIPES, with_configurations
from s3prl_dphubert.pretrain.link import MARK, link, unlink
from s3prl_dphubert.pretrain.pretrain_config import PretrainRecipe, RunnerConfig, RunnerData
from s3prl_dphubert.upstream.entries import dphubert_local
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.config_io import read_yaml
from tests.helpers.models import tiny
from tests.helpers.s3prl_runs import python

FOLDERS = ("pretrain/dphubert", "upstream/dphubert")


@pytest.fixture
def checkout(tmp_path):
    """Clone of s3prl with only what run_pretrain needs."""
    home = Path(find_spec("s3prl").origin).parent
    root = tmp_path / "clone" / "s3prl"
    ignored = shutil.ignore_patterns("__pycache__", "downstream", "problem", "task", "nn", "*.ckpt")
    shutil.copytree(home, root, ignore=ignored)
    return root.parent


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_undo_restores_the_checkout(checkout, capsys):
    before, folders = contents(checkout), {path for path in checkout.rglob("*") if path.is_dir()}
    assert len(before) > 100
    assert main(["link", str(checkout)]) == 0
    added = contents(checkout).keys() - before.keys()
    names = ["__init__.py", "pretrain_expert.py", "config_model.yaml", "config_runner.yaml", MARK]
    assert {f"s3prl/pretrain/dphubert/{name}" for name in names} <= added
    assert {f"s3prl/upstream/dphubert/{name}" for name in ("__init__.py", "hubconf.py", MARK)} <= added
    assert main(["link", str(checkout / "s3prl")]) == 0  # again, and by the other folder
    names = runpy.run_path(str(checkout / "s3prl" / "upstream" / "dphubert" / "hubconf.py"))
    assert names["dphubert_local"] is dphubert_local
    assert main(["link", str(checkout), "--undo"]) == 0
    assert contents(checkout) == before
    assert {path for path in checkout.rglob("*") if path.is_dir()} == folders
    assert "removed" in capsys.readouterr().out
    assert main(["link", str(checkout), "--undo"]) == 2
    assert "holds nothing that link put there" in capsys.readouterr().err


def test_what_a_user_put_there_stays(checkout):
    root = checkout / "s3prl"
    link(checkout)
    own, changed = root / FOLDERS[0] / "mine.yaml", root / FOLDERS[0] / "config_runner.yaml"
    own.write_text("mine")
    changed.write_text("changed")
    (root / FOLDERS[1] / "hubconf.py").unlink()
    assert any("was changed and stays" in line for line in link(checkout))
    assert changed.read_text() == "changed"
    assert (root / FOLDERS[1] / "hubconf.py").is_file()
    lines = unlink(checkout)
    assert [line for line in lines if "changed" in line] == [f"{changed}: was changed and stays"]
    assert contents(root / FOLDERS[0]) == {"mine.yaml": b"mine", "config_runner.yaml": b"changed"}
    assert not (root / FOLDERS[1]).exists()


def test_folders_of_others_are_refused(checkout, tmp_path):
    for name in FOLDERS:
        (checkout / "s3prl" / name).mkdir()
        (checkout / "s3prl" / name / "theirs.py").write_text("")
        with pytest.raises(RunError, match=f"{name}: exists and was not put there by link"):
            link(checkout)
        assert contents(checkout / "s3prl" / name) == {"theirs.py": b""}
        shutil.rmtree(checkout / "s3prl" / name)
    assert not any((checkout / "s3prl" / name).exists() for name in FOLDERS)
    with pytest.raises(RunError, match=r"no checkout of s3prl, expected"):
        link(tmp_path / "clone" / "s3prl" / "pretrain")


@pytest.mark.slow
@pytest.mark.s3prl
def test_runs_in_a_checkout(checkout, tmp_path):
    """As s3prl's users start it; then unlinked although Python has compiled what was there."""
    link(checkout)
    manifests, skipped = scan([resources.find("assets/speech/festvox")], min_seconds=0.4)
    write(tmp_path / "x.tsv", manifests, skipped)
    save_model(tiny("wavlm"), tmp_path / "teacher")
    budget = {"sparsity": {"superb_macs": 0.3}, "warmup": 1}
    recipe = {"teacher": str(tmp_path / "teacher"), "budget": budget, "objective": {"groups": [[0], [3]]}}
    batch = {"seconds_per_batch": 6.0, "min_seconds": 0.4, "max_seconds": 2.0, "buckets": 2}
    runner = read_yaml(RECIPES / "dphubert" / "config_runner.yaml")
    runner["pretrain_expert"]["datarc"] |= {
        "train": str(tmp_path / "x.tsv"),
        "batch": batch,
        "num_workers": 0,
    }
    runner["optimizer"] |= {"warmup": 1}
    runner["runner"] |= {"total_steps": 4, "log_step": 1, "save_step": 2, "fp16": False}
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(runner))
    files = ["-g", str(tmp_path / "g.yaml"), "-c", str(tmp_path / "c.yaml")]
    arguments = ["-u", "dphubert", *files, "-n", "try", "--device", "cpu"]
    bare = {"S3PRL_DPHUBERT_COMPAT": "0", "S3PRL_DPHUBERT_PLUGIN": "0", "PYTHONDONTWRITEBYTECODE": ""}
    ended = python("run_pretrain.py", *arguments, cwd=checkout / "s3prl", **bare).ok()
    assert "Training for 4 steps" in ended.out
    folder = checkout / "s3prl" / "result" / "pretrain" / "try"
    assert sorted(path.name for path in folder.glob("states-*.ckpt")) == ["states-2.ckpt", "states-4.ckpt"]
    assert load_model(folder / "states-4").config.num_buckets == 32
    assert any((checkout / "s3prl" / FOLDERS[0] / "__pycache__").iterdir())
    unlink(checkout)
    assert not any((checkout / "s3prl" / name).exists() for name in FOLDERS)


def test_what_ships_is_the_published_recipe():
    """Both stages, read as an experiment would read them."""
    folder = RECIPES / "dphubert"
    published = read_yaml(resources.find("upstream_configs/dphubert_base.yaml"))
    for stage, suffix in ((1, ""), (2, "_stage2")):
        recipe = PretrainRecipe.read(folder / f"config_model{suffix}.yaml")
        config = read_yaml(folder / f"config_runner{suffix}.yaml")
        data = RunnerData.read(config["pretrain_expert"]["datarc"])
        training = RunnerConfig.read(config, epoch=10_000, num_workers=data.num_workers).training()
        # s3prl's runner does not recover from an overflow in fp16
        wanted = published[f"stage{stage}"] | {"precision": "bf16"}
        assert (recipe.stage, recipe.teacher, recipe.seed) == (stage, published["teacher"], 0)
        assert {name: getattr(training, name) for name in wanted} == wanted
        assert recipe.budget.shares == {"parameters": published["budget"]["sparsity"]}
        assert recipe.budget.warmup == published["budget"]["warmup"]
        assert recipe.objective.groups == ((0,), (4, 8, 12))
        assert {n: getattr(data.batch, n) for n in published["data"]["batch"]} == published["data"]["batch"]


def test_files_of_earlier_links_work(tmp_path):
    """They import three modules by name, and asked s3prl's runner for fp16."""
    (tmp_path / "linked.py").write_text(
        "from s3prl_dphubert.pretrain.expert import UpstreamPretrainExpert\n"
        "from s3prl_dphubert.pretrain.hooks import install\n"
        "from s3prl_dphubert.upstream.entries import *\n"
        "print(*(each.__name__ for each in (UpstreamPretrainExpert, install, dphubert, dphubert_local)))\n"
    )
    done = python("linked.py", cwd=tmp_path).ok()
    assert done.out.split() == ["UpstreamPretrainExpert", "install", "dphubert", "dphubert_local"]
    config = read_yaml(RECIPES / "dphubert" / "config_runner.yaml")
    del config["runner"]["precision"]
    config["runner"]["fp16"] = True
    assert RunnerConfig.read(config, epoch=10_000, num_workers=2).training().precision == "fp16"


def test_left_out_configurations_are_those_that_ship(monkeypatch):
    assert with_configurations(["-u", "tera", "-n", "x"]) == ["-u", "tera", "-n", "x"]
    given = ["--upstream", "dphubert", "-g", "mine.yaml", "-n", "x"]
    default = str(RECIPES / "dphubert" / "config_runner.yaml")
    assert Path(default).is_file()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert with_configurations(given) == [*given, "-c", default]
    assert with_configurations(["-u", "dphubert"])[2::2] == ["-c", "-g"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert with_configurations(given) == [*given, "-c", default, "--device", "cpu"]
    assert with_configurations([*given, "--device", "cuda:1"]) == [
        *given,
        "--device",
        "cuda:1",
        "-c",
        default,
    ]


@pytest.mark.slow
@pytest.mark.s3prl
def test_s3prls_own_upstreams_are_there_too(tmp_path):
    """The list of -u, and an experiment that asks for nothing of ours."""
    ended = python("-m", "s3prl_dphubert.cli", "run_pretrain", "-u", "nothing", cwd=tmp_path)
    assert ended.code == 2
    for name in ("dphubert", "tera", "apc"):
        assert f"{name}" in ended.err.split("choose from")[1]
