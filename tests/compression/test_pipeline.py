"""The pipeline: trains, prunes, distils, and refuses what it should."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import torch
import yaml

from s3prl_dphubert import ExportConfig, compress, export_model, load_exported, load_model, save_model
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.demo.compression_demo import show
from s3prl_dphubert.errors import ConfigError, DataError, RunError
from s3prl_dphubert.model.cost import parameters
from s3prl_dphubert.model.state_dict import load_weights_only
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.utils.config_io import from_dict, to_dict
from tests.helpers.compression_runs import STAGE, make_place, read_config, settings
from tests.helpers.models import outputs, tiny

QUICK = {**STAGE, "updates": 4, "warmup": 1, "validate_every": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def config(place) -> CompressConfig:
    return read_config(place)


@pytest.fixture(scope="module")
def finished(place, config):
    out = place / "finished"
    compress(config, out)
    return out


def test_a_run_ends_within_budget(finished, config, place):
    model, teacher = load_model(finished / "model"), load_model(place / "teacher")
    limit = 0.6 * parameters(teacher.config)
    assert 0.97 * limit <= parameters(model.config) <= limit
    results = json.loads((finished / "results.json").read_text())
    valid = {name: scalars["loss"] for name, scalars in results["valid"].items()}
    assert list(valid) == ["teacher_copy", "stage1", "pruned", "stage2"]
    assert valid["pruned"] == pytest.approx(valid["stage1"], abs=1e-4)
    assert valid["teacher_copy"] == pytest.approx(-1, abs=1e-5)
    assert valid["stage2"] < valid["pruned"]
    assert results["model"]["parameters"] == parameters(model.config)
    for name in ("training.png", "units.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    halfway = load_model(finished / "pruned").config
    assert f"{parameters(halfway):,}" in (finished / "pruned" / "README.md").read_text()
    card = (finished / "model" / "README.md").read_text()
    for part in (f"{parameters(model.config):,}", "sparsity 0.4", str(place / "teacher"), "| layer | heads"):
        assert part in card


@pytest.mark.parametrize("shape", ["mhubert", "mms"])
def test_teachers_with_rare_parts_are_compressed_and_exported(shape, place, tmp_path):
    save_model(tiny(shape), tmp_path / "teacher")
    stages = {"stage1": {**QUICK, "gate_lr": 0.2}, "stage2": QUICK}
    values = settings(place) | stages | {"teacher": str(tmp_path / "teacher")}
    values["budget"] |= {"warmup": 2}
    compress(from_dict(CompressConfig, values), tmp_path / "out")
    model, teacher = load_model(tmp_path / "out" / "model"), load_model(tmp_path / "teacher")
    assert parameters(model.config) <= 0.6 * parameters(teacher.config)
    fields = ("pos_conv_batch_norm", "projection_norm", "layer_norm_eps", "adapter_dim")
    assert [getattr(model.config, name) for name in fields] == [
        getattr(teacher.config, name) for name in fields
    ]
    rare = [name for name in model.state_dict() if "batch_norm" in name or "adapter" in name]
    changed = [name for name in rare if not torch.equal(model.state_dict()[name], teacher.state_dict()[name])]
    assert changed == rare != []
    export_model(tmp_path / "out" / "model", tmp_path / "small.onnx", ExportConfig(format="onnx"))
    waveforms = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8000, 5000])
    with torch.no_grad():
        states, frames = model.extract_features(waveforms, lengths)
    exported, _ = load_exported(tmp_path / "small.onnx").extract_features(waveforms, lengths)
    for ours, theirs in zip(states, exported, strict=True):
        for row, other, valid in zip(ours, theirs, frames.tolist(), strict=True):
            torch.testing.assert_close(row[:valid], other[:valid], atol=1e-4, rtol=1e-4)


def test_log_and_checkpoints(finished, config):
    for stage in ("stage1", "stage2"):
        rows = [json.loads(row) for row in (finished / stage / "log.jsonl").read_text().splitlines()]
        assert [row["update"] for row in rows] == list(range(1, 13))
        assert len(list((finished / stage).glob("state-*.pt"))) == config.stage1.keep
        assert any(finished.joinpath(stage).glob("events.out.tfevents.*"))
        best = min(row["valid_loss"] for row in rows if "valid_loss" in row)
        assert load_weights_only(finished / stage / "best.pt")["loss"] == pytest.approx(best)
    rows = [json.loads(row) for row in (finished / "stage1" / "log.jsonl").read_text().splitlines()]
    assert [round(row["target_sparsity"], 6) for row in rows[:5]] == [0, 0.1, 0.2, 0.3, 0.4]


def test_a_finished_run_is_only_loaded(finished, config):
    before = (finished / "model" / "model.safetensors").stat().st_mtime_ns
    compress(config, finished)
    assert (finished / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_another_run_is_not_overwritten(finished, config, tmp_path):
    with pytest.raises(RunError, match=r"differs in budget\.sparsity\.parameters, seed"):
        compress(replace(config, seed=9, budget=Budget(0.3, warmup=4, seconds=1.0)), finished)
    with pytest.raises(RunError, match=r"differs in student\.layers; take another --out, or remove it$"):
        compress(changed(config, student={"layers": 3}), tmp_path / "students")
        compress(changed(config, student={"layers": 2}), tmp_path / "students")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        compress(config, tmp_path)


def test_too_many_bad_files_stop_the_start(config, place, tmp_path):
    lines = (place / "x.tsv").read_text().splitlines()
    (tmp_path / "bad.tsv").write_text(
        "\n".join([*lines, *(f"/nowhere/{i}.wav\t9000" for i in range(5))]) + "\n"
    )
    with pytest.raises(DataError, match=r"5 of \d+ files are bad"):
        compress(
            replace(config, data=replace(config.data, train=str(tmp_path / "bad.tsv"))), tmp_path / "out"
        )


def changed(config, **values):
    return from_dict(CompressConfig, to_dict(config) | values)


def test_how_a_run_is_computed_may_change_on_the_way(config, place, tmp_path, caplog):
    quick = changed(config, stage1=QUICK | {"gate_lr": 0.2}, stage2=QUICK)
    compress(quick, tmp_path / "out")
    other = replace(quick, stage2=replace(quick.stage2, num_workers=2, precision="bf16", accumulate=2))
    with caplog.at_level(logging.WARNING):
        compress(other, tmp_path / "out")
    words = "stage2.accumulate 2 (was 1), stage2.num_workers 2 (was 0), stage2.precision bf16 (was fp32)"
    assert caplog.messages == [f"{tmp_path / 'out'}: goes on with {words}"]
    assert from_dict(CompressConfig, yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())) == other
    with pytest.raises(RunError, match=r"differs in stage2\.lr; take another"):
        compress(replace(quick, stage2=replace(quick.stage2, lr=2e-3)), tmp_path / "out")


def test_a_student_of_its_own_is_distilled_without_pruning(config, tmp_path, capsys):
    """Two layers of half the width: copies where shapes allow it, no stage 1, no budget."""
    student = {"layers": [1, 3], "embed_dim": 16, "heads": 2, "ffn": 20}
    objective = {"groups": [[0], [[1, 2], [2, 3]]]}
    run = changed(config, student=student, stage1=None, stage2=QUICK | {"lr": 1e-2}, objective=objective)
    out = tmp_path / "out"
    model = compress(run, out)
    assert (model.config.embed_dim, model.config.heads, model.config.ffn) == (16, ((0, 1), (0, 1)), (20, 20))
    assert not (out / "stage1").exists() and not (out / "pruned").exists()
    first = load_model(out / "student")
    assert first.config == model.config
    assert not torch.equal(outputs(first)[0], outputs(model)[0])
    results = json.loads((out / "results.json").read_text())
    valid = {name: scalars["loss"] for name, scalars in results["valid"].items()}
    assert list(valid) == ["student", "stage2"]
    assert valid["stage2"] < valid["student"]
    card = (out / "model" / "README.md").read_text()
    for part in ("distilled", "| student | layers (1, 3), embed_dim 16", "stage 2: 4 updates"):
        assert part in card
    assert "sparsity" not in card and "stage 1" not in card
    for name in ("training.png", "units.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    show(out, run)
    text = capsys.readouterr().out
    assert "student at the start" in text and "after stage 1" not in text
    again = compress(run, tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(outputs(model), outputs(again), strict=True))


def test_predictions_of_deeper_layers_than_the_student_has(config, tmp_path):
    """As DistilHuBERT: two layers of the teacher predict its third from their last."""
    objective = {"mode": "predlayer", "groups": [[1, 2, 3]]}
    run = changed(config, student={"layers": 2}, stage1=None, stage2=QUICK, objective=objective)
    model = compress(run, tmp_path / "out")
    assert model.config.num_layers == 2
    saved = load_weights_only(tmp_path / "out" / "stage2" / "state-00000004.pt")["module"]
    assert sum("objective.projections" in name for name in saved) == 6


def test_a_student_of_its_own_can_be_pruned(config, place, tmp_path):
    """The budget stays a share of the teacher, and the target rises from what the student is."""
    teacher = load_model(place / "teacher").config
    objective = {"groups": [[0], [[1, 1], [2, 3]]]}
    quick = {"stage1": QUICK | {"gate_lr": 0.2}, "stage2": None, "objective": objective}
    budget = {"sparsity": 0.6, "warmup": 4, "tolerance": 1.0}
    run = changed(config, student={"layers": [1, 3]}, budget=budget, **quick)
    out = tmp_path / "out"
    model = compress(run, out)
    assert model.config.num_layers == 2
    limit = 0.4 * parameters(teacher)
    assert 0.95 * limit <= parameters(model.config) <= limit
    begin = 1 - parameters(load_model(out / "student").config) / parameters(teacher)
    rows = [json.loads(row) for row in (out / "stage1" / "log.jsonl").read_text().splitlines()]
    targets = [begin + (0.6 - begin) * update / 4 for update in range(4)]
    assert [row["target_sparsity"] for row in rows] == pytest.approx(targets)
    assert 0.2 < begin < 0.4
    valid = json.loads((out / "results.json").read_text())["valid"]
    assert list(valid) == ["student", "stage1", "pruned"]
    assert not (out / "stage2").exists()
    assert "pruned to sparsity 0.6 in parameters" in (out / "model" / "README.md").read_text()
    a, b = load_model(out / "pruned").state_dict(), model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in b)
    with pytest.raises(ConfigError, match=r"the student costs [\d,]+ parameters of [\d,]+ before pruning"):
        compress(changed(run, budget={"sparsity": 0.2, "warmup": 4}), tmp_path / "small")


def test_a_pruned_teacher_has_students_too(config, finished, tmp_path):
    values = settings(finished.parent) | {"teacher": str(finished / "model"), "student": {"layers": 2}}
    run = from_dict(
        CompressConfig, values | {"stage1": None, "stage2": QUICK, "objective": {"groups": [[0]]}}
    )
    model = compress(run, tmp_path / "out")
    teacher = load_model(finished / "model").config
    assert (model.config.heads, model.config.ffn) == (teacher.heads[:2], teacher.ffn[:2])
    assert model.config.conv_channels == teacher.conv_channels
