"""Several sizes from one stage 1: each within its budget, resumed to the bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml

from s3prl_dphubert import compress, load_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model.cost import parameters
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.budget_steps import SteppedBudget
from s3prl_dphubert.training.trainer import Trainer
from s3prl_dphubert.utils.config_io import from_dict, to_dict
from tests.helpers.compression_runs import STAGE, make_place, settings
from tests.helpers.forked_processes import finish, run

SIZES = (0.15, 0.3, "17k")
FILES = ("pruned/model.safetensors", "projections.safetensors", "model/model.safetensors", "results.json")


def several(place, **changes):
    values = settings(place) | {"sizes": list(SIZES), **changes}
    values["stage1"] = STAGE | {"updates": 36, "gate_lr": 0.3, "save_every": 5, "keep": 1}
    values["stage2"] = STAGE | {"updates": 4, "save_every": 2}
    values["budget"] = {"sparsity": 0.5, "warmup": 12, "seconds": 1.0}
    return from_dict(CompressConfig, values)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def whole(place):
    model = compress(several(place), place / "whole")
    return place / "whole", model


@pytest.mark.slow
def test_every_size_keeps_its_budget(place, whole):
    out, smallest = whole
    full = parameters(load_model(place / "teacher").config)
    limits = [0.85 * full, 0.7 * full, 17_000]
    rows = [json.loads(row) for row in (out / "stage1" / "log.jsonl").read_text().splitlines()]
    stops = [1 - limit / full for limit in limits]
    for size, limit, stop, end in zip(SIZES, limits, stops, (12, 24, 36), strict=True):
        part = out / str(size)
        cost = sum(p.numel() for p in load_model(part / "model").parameters())
        assert 0.97 * limit < cost <= limit
        assert rows[end - 1]["target_sparsity"] == pytest.approx(stop)
        assert rows[end - 1]["sparsity"] == pytest.approx(stop, abs=0.02)
        results = json.loads((part / "results.json").read_text())
        assert set(results["valid"]) == {"teacher_copy", "stage1", "pruned", "stage2"}
        assert results["model"]["parameters"] == cost
        assert len((part / "stage1" / "log.jsonl").read_text().splitlines()) == end
        assert (part / "training.png").read_bytes().startswith(b"\x89PNG")
        assert not list((part / "stage1").glob("*.pt"))
    assert sum(p.numel() for p in smallest.parameters()) <= 17_000
    table = (out / "sizes.md").read_text().splitlines()
    assert len(table) == 2 + len(SIZES)
    assert table[2].startswith("| sparsity 0.15 in parameters |")
    assert table[4].startswith("| at most 17k parameters |")


def test_the_target_stops_at_each_size():
    budgets = [Budget({"macs": share}, warmup=30) for share in (0.2, 0.5, 0.8)]
    steps = SteppedBudget.of(budgets, 100)
    assert steps.ends == [33, 66, 100]
    rise = [steps.targets(update)["macs"] for update in (0, 5, 10, 32, 33, 38, 43, 65, 66, 76, 99, 500)]
    assert rise == pytest.approx([0, 0.1, 0.2, 0.2, 0.2, 0.35, 0.5, 0.5, 0.5, 0.8, 0.8, 0.8])
    assert steps.targets(5, {"macs": 0.1})["macs"] == pytest.approx(0.15)
    assert steps.constraint == "projection"
    assert steps.shares == {"macs": 0.8}
    with pytest.raises(ConfigError, match="from the largest model to the smallest"):
        SteppedBudget.of(budgets[::-1], 100)
    with pytest.raises(ConfigError, match="at most the updates of stage 1"):
        SteppedBudget.of(budgets, 2)


def _stop(trained, folder, update, trainer):
    after = trainer.after_step

    def stop(*arguments):
        after(*arguments)
        if trainer.folder.parts[-2:] == folder and trainer.update == update:
            raise KeyboardInterrupt

    trainer.after_step = stop
    trained(trainer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "update"),
    [(("halves", "stage1"), 14), (("halves", "stage1"), 36), (("0.3", "stage2"), 3)],
)
def test_a_run_that_was_interrupted_ends_alike(place, whole, tmp_path, monkeypatch, folder, update):
    """After the first size was complete, after stage 1, and within the second size."""
    out = tmp_path / "halves"
    trained = Trainer.run
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "run", lambda self: partial(_stop, trained, folder, update)(self))
        compress(several(place), out)
    compress(several(place), out)
    for size in SIZES:
        for name in FILES:
            assert (out / str(size) / name).read_bytes() == (whole[0] / str(size) / name).read_bytes(), name
    assert (out / "sizes.md").read_text() == (whole[0] / "sizes.md").read_text()


@pytest.mark.slow
def test_a_finished_run_does_nothing_and_a_lost_size_is_made_anew(place, whole, monkeypatch):
    out = whole[0]
    before = (out / "0.3" / "model" / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda self: pytest.fail("trained again"))
        compress(several(place), out)
    shutil.rmtree(out / "0.3")
    compress(several(place), out)
    assert (out / "0.3" / "model" / "model.safetensors").read_bytes() == before


def accumulated(place, out, accumulate):
    config = several(place)
    stages = {name: replace(getattr(config, name), accumulate=accumulate) for name in ("stage1", "stage2")}
    compress(replace(config, device="cpu", **stages), out)


@pytest.mark.slow
@pytest.mark.torchrun
def test_two_processes_make_the_sizes_of_one_that_accumulates_two(place, tmp_path):
    finish(run(tmp_path / "one", accumulated, place, tmp_path / "whole", 2))
    finish(run(tmp_path / "two", accumulated, place, tmp_path / "halves", 1, world=2))
    for size in SIZES:
        one, two = (load_model(tmp_path / name / str(size) / "model") for name in ("whole", "halves"))
        assert one.config == two.config
        for name, tensor in one.state_dict().items():
            torch.testing.assert_close(two.state_dict()[name], tensor, atol=1e-4, rtol=1e-4)


def test_sizes_that_mean_nothing(place):
    config = several(place)
    for sizes, message in (
        ((0.5, 0.5), "each size once"),
        ((0.5, "24X"), "sizes has '24X', allowed: shares between 0 and 1, or amounts such as 24M"),
        ((0.5, -1.0), r"sizes has -1\.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(config, sizes=sizes)
    with pytest.raises(
        ConfigError, match="sizes are given and budget limits parameters, macs, allowed: one count"
    ):
        replace(config, budget=Budget({"parameters": 0.5, "macs": 0.5}, warmup=4))
    with pytest.raises(ConfigError, match="sizes are given without stage1"):
        from_dict(
            CompressConfig, settings(place) | {"stage1": None, "student": {"layers": 1}, "sizes": [0.5]}
        )


@pytest.mark.slow
def test_the_command_prints_the_table(place, whole, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(to_dict(several(place)) | {"sizes": []}))
    main(["compress", str(file), "--out", str(whole[0]), "--sizes", ",".join(map(str, SIZES))])
    shown = capsys.readouterr()
    assert shown.out.split() == [str(whole[0] / str(size) / "model") for size in SIZES]
    assert (whole[0] / "sizes.md").read_text() in shown.err
