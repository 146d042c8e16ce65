"""Directories of runs: whose they are, what they hold with them, and what damage leaves."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace

import pytest
import torch
import yaml

from s3prl_dphubert import compress, load_model, save_model
from s3prl_dphubert.compression import run_directory as directories
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.compression.run_directory import run_directory
from s3prl_dphubert.errors import CheckpointError, ConfigError, DataError, RunError
from s3prl_dphubert.utils.config_io import from_dict, to_dict
from tests.helpers.compression_runs import make_place, settings
from tests.helpers.forked_processes import run
from tests.helpers.models import tiny

pytestmark = pytest.mark.slow

SHORT = {"updates": 4, "warmup": 1, "validate_every": 2}


def short(place, **changes) -> CompressConfig:
    values = settings(place)
    for stage in ("stage1", "stage2"):
        values[stage] |= SHORT
    return from_dict(CompressConfig, values | changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def finished(place):
    compress(short(place), place / "finished")
    return place / "finished"


@pytest.fixture
def copy(finished, tmp_path):
    """A finished run whose stage 2 can be taken up again after its last checkpoint."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    return tmp_path / "run"


def config_of(out):
    return from_dict(CompressConfig, yaml.safe_load((out / "config.yaml").read_text()))


@pytest.mark.parametrize(
    ("broken", "error"),
    [({"teacher": "/nowhere"}, CheckpointError), ({"objective": {"groups": [[0], [4, 8]]}}, ConfigError)],
)
def test_a_first_start_that_fails_leaves_the_directory_free(place, tmp_path, broken, error):
    out = tmp_path / "out"
    with pytest.raises(error):
        compress(short(place, **broken), out)
    fixed = short(place, stage2=None)
    compress(fixed, out)
    assert config_of(out) == fixed
    with pytest.raises(RunError, match=r"differs in seed, stage2; take another --out, or remove it"):
        compress(short(place, seed=4), out)


def test_what_a_failed_start_left_is_not_taken_for_ones_own(place, tmp_path):
    out = tmp_path / "out"
    with run_directory(short(place, seed=9), out):
        (out / "stage1").mkdir()
        (out / "stage1" / "log.jsonl").write_text('{"update": 1}\n')
        (out / "results.json").write_text('{"valid": {"teacher_copy": {"loss": 7.0}}}')
        (out / "notes.txt").write_text("mine")
    compress(short(place, stage2=None), out)
    assert json.loads((out / "results.json").read_text())["valid"]["teacher_copy"]["loss"] < 0
    assert (out / "notes.txt").read_text() == "mine"


def test_a_manifest_may_be_mended_after_a_failed_start(place, tmp_path):
    values = settings(place)["data"] | {"train": str(tmp_path / "x.tsv")}
    config = short(place, data=values, student={"layers": 3}, stage2=None)
    text = (place / "x.tsv").read_text()
    (tmp_path / "x.tsv").write_text(text + "".join(f"/nowhere/{i}.wav\t9000\n" for i in range(5)))
    with pytest.raises(DataError, match=r"5 of \d+ files are bad"):
        compress(config, tmp_path / "out")
    (tmp_path / "x.tsv").write_text(text)
    smaller = short(place, data=values, student={"layers": 2}, objective={"groups": [[0]]}, stage2=None)
    assert compress(smaller, tmp_path / "out").config.num_layers == 2


def test_a_directory_killed_before_its_configuration_is_free(place, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".config.yaml.1234abcd.part").write_text("tea")
    with run_directory(short(place), out):
        assert config_of(out) == short(place)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "config.yaml"]


def hold(place, out, seed):
    with run_directory(short(place, seed=seed), out):
        threading.Event().wait(60)


def test_the_configuration_is_that_of_the_process_that_holds_the_lock(place, tmp_path):
    out = tmp_path / "out"
    (holder,) = run(tmp_path / "log", hold, place, out, 5)
    try:
        while not (out / "config.yaml").exists():
            assert holder.process.is_alive(), holder.text
        with pytest.raises(RunError, match="another process is running it"):
            compress(short(place, seed=6), out)
        assert config_of(out).seed == 5
        again = replace(short(place, seed=5), device="cpu")
        with pytest.raises(RunError, match="another process is running it"):
            compress(again, out)  # a change that would be allowed is not written either
        assert config_of(out).device == "auto"
    finally:
        holder.process.kill()


def test_a_file_in_the_way_is_named(place, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(RunError, match="a file is in the way, expected a directory or a new name"):
            compress(short(place), out)


@pytest.mark.parametrize("field", ["data.train", "data.valid", "teacher"])
def test_changed_inputs_are_refused(tmp_path, place, field):
    """A path stays the same while its content changes; removing the digests accepts that."""
    inner = tmp_path / "inputs"
    shutil.copytree(place / "teacher", inner / "teacher")
    for name in ("x.tsv", "x.valid.tsv"):
        shutil.copy(place / name, inner / name)
    values = settings(place)["data"] | {"train": str(inner / "x.tsv"), "valid": str(inner / "x.valid.tsv")}
    config = short(place, teacher=str(inner / "teacher"), data=values)
    out = tmp_path / "out"
    compress(config, out)
    shutil.rmtree(out / "model")
    if field == "teacher":
        shutil.rmtree(inner / "teacher")
        save_model(tiny("hubert", seed=5), inner / "teacher")
    else:
        path = inner / ("x.tsv" if field == "data.train" else "x.valid.tsv")
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match=rf"{field} \(.*\) changed since the run began; restore the content"):
        compress(config, out)
    (out / "inputs.json").unlink()
    compress(config, out)
    assert set(json.loads((out / "inputs.json").read_text())) == {"data.train", "data.valid", "teacher"}


def test_damaged_results_and_logs_cost_only_themselves(place, copy, finished):
    (copy / "results.json").write_bytes(b"")
    (copy / "stage1" / "log.jsonl").write_bytes(b'\xef\xbb\xbf\xff{"update"\n[3]\n')
    (copy / "stage2" / "log.jsonl").write_text('{"update": 1}\nnull\n')
    compress(short(place), copy)
    results = json.loads((copy / "results.json").read_text())
    assert set(results) == {"valid", "environment", "teacher", "model", "macs_seconds"}
    assert "stage2" in results["valid"]
    assert (copy / "model" / "model.safetensors").read_bytes() == (
        finished / "model" / "model.safetensors"
    ).read_bytes()
    (copy / "results.json").write_text("[1]")  # of a finished run
    compress(short(place), copy)
    (copy / "results.json").unlink()
    compress(short(place), copy)


@pytest.mark.parametrize(
    ("damaged", "removed"),
    [
        ("pruned/model.safetensors", "pruned"),
        ("projections.safetensors", "pruned"),
        ("stage2/best.pt", "stage2/best.pt"),
    ],
)
def test_the_file_to_remove_is_named_and_made_again(place, copy, finished, damaged, removed):
    (copy / damaged).write_bytes((copy / damaged).read_bytes()[:100])
    with pytest.raises(RunError, match=rf"remove {copy / removed} and start again: "):
        compress(short(place), copy)
    target = copy / removed
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    compress(short(place), copy)
    if removed == "pruned":
        for name in ("pruned/model.safetensors", "projections.safetensors", "model/model.safetensors"):
            assert (copy / name).read_bytes() == (finished / name).read_bytes(), name


def test_a_damaged_result_is_named_too(place, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=rf"remove {tmp_path / 'run' / 'model'} and start again"):
        compress(short(place), tmp_path / "run")


def test_projections_are_as_readable_as_the_model(finished):
    modes = {path.stat().st_mode for path in finished.glob("*/model.safetensors")}
    assert {(finished / "projections.safetensors").stat().st_mode} == modes


def test_a_student_far_from_its_budget_is_not_pruned(place, tmp_path):
    """Four updates; a higher tolerance goes on from there, and prunes what another run would, too."""
    values = to_dict(short(place))["budget"] | {"tolerance": 0.05, "sparsity": 0.7}
    config, out = short(place, budget=values, stage2=None), tmp_path / "out"
    message = (
        r"budget\.sparsity\.parameters is 0\.7, but the gates expect 0\.[0-3]\d\d after stage 1, "
        r"allowed: within budget\.tolerance \(0\.05\)"
    )
    for _ in range(2):
        with pytest.raises(RunError, match=message):
            compress(config, out)
        assert not (out / "pruned").exists()
    trained = (out / "stage1" / "state-00000004.pt").stat().st_mtime_ns
    model = compress(replace(config, budget=replace(config.budget, tolerance=1.0)), out)
    assert (out / "stage1" / "state-00000004.pt").stat().st_mtime_ns == trained
    other = compress(replace(config, budget=replace(config.budget, tolerance=1.0)), tmp_path / "other")
    pairs = zip(model.state_dict().items(), other.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    with pytest.raises(ConfigError, match=r"budget: tolerance is 0\.0, allowed: above 0 to 1"):
        replace(config.budget, tolerance=0.0)


def test_digests_are_those_of_contents(place):
    digest = directories.sha256_model
    one, same, other = tiny("hubert"), load_model(place / "teacher"), tiny("hubert", seed=1)
    digests = [digest(model.config.to_dict(), model.state_dict()) for model in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
