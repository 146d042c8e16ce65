"""Configurations: inheritance, every fault at once, and the files that ship."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s3prl_dphubert import compress, load_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.distillation.student_init import StudentConfig
from s3prl_dphubert.errors import ConfigError, RunError
from s3prl_dphubert.model import ModelConfig
from s3prl_dphubert.model.cost import parameters
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.config_io import apply_changes, from_dict, read_yaml, to_dict

MINIMAL = {"teacher": "hubert_mini", "data": {"train": "x.tsv"}}


def test_defaults_are_the_published_recipe():
    config = from_dict(CompressConfig, MINIMAL)
    assert (config.stage1.updates, config.stage1.warmup, config.stage1.lr) == (50_000, 15_000, 2e-4)
    assert (config.stage2.updates, config.stage2.warmup, config.stage2.lr) == (25_000, 5_000, 1e-4)
    assert (config.stage1.gate_lr, config.stage1.clip) == (0.02, 10.0)
    assert (config.budget.sparsity, config.budget.warmup) == ({"parameters": 0.75}, 5000)
    assert config.objective.groups == ((0,), (4, 8, 12))
    batch = config.data.batch
    assert (batch.seconds_per_batch, batch.min_seconds, batch.max_seconds, batch.buckets) == (
        160,
        2,
        15.6,
        1000,
    )


def test_round_trip():
    config = from_dict(CompressConfig, MINIMAL)
    assert from_dict(CompressConfig, to_dict(config)) == config


def test_budgets_in_yaml(tmp_path):
    for text, wanted in (
        ("0.75", {"parameters": 0.75}),
        ("{macs: 0.6, parameters: 5e-1}", {"parameters": 0.5, "macs": 0.6}),
        ("{superb_macs: 0.5}", {"superb_macs": 0.5}),
    ):
        (tmp_path / "x.yaml").write_text(f"teacher: a\ndata: {{train: b}}\nbudget: {{sparsity: {text}}}\n")
        config = from_dict(CompressConfig, read_yaml(tmp_path / "x.yaml"))
        assert list(config.budget.shares.items()) == list(wanted.items())
        assert from_dict(CompressConfig, to_dict(config)) == config
    for value, message in (
        ("much", "budget.sparsity is 'much', expected a number or a mapping"),
        ({"macs": "much"}, "budget.sparsity.macs is 'much', expected a number"),
        ([0.5], r"budget.sparsity is \[0.5\], expected a number or a mapping"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_dict(CompressConfig, {**MINIMAL, "budget": {"sparsity": value}})


def test_every_fault_at_once():
    values = {
        "teachr": "x",
        "data": {"train": "x.tsv", "batch": {"buckets": 0}},
        "seed": "zero",
        "gates": {"kinds": ["rows"]},
        "budget": {"sparsity": {"macs": 2, "flops": 0.5}},
        "stage1": {"precision": "int8", "updates": 10},
        "stage2": 5,
    }
    with pytest.raises(ConfigError) as caught:
        from_dict(CompressConfig, values)
    message = str(caught.value)
    for part in (
        "teachr: unknown field; available: teacher, data, seed",
        "teacher is missing",
        "data.batch.buckets is 0, allowed",
        "seed is 'zero', expected an integer",
        "gates.kinds has ['rows']",
        "budget.sparsity.macs is 2.0",
        "budget.sparsity names 'flops'",
        "stage1.precision is 'int8', allowed: fp32, bf16, fp16",
        "stage1.warmup is 15000, allowed: 0 to updates (10)",
        "stage2 is 5, expected a mapping or null",
    ):
        assert part in message


def test_one_fault_hides_no_other():
    """Six kinds of fault in four sections, each with its path, and nothing that only follows from them."""
    values = {
        "teacher": "hubert_mini",
        "data": {"train": ["x.tsv"], "batch": {"buckets": 0, "bucket": 7}},
        "stage1": {"updates": 10, "warmup": 3, "lr": "fast", "speed": 2, "keep": 0},
        "objective": {"groups": [[0], [4, "8"]]},
        "seed": -1,
        "student": {"colour": "red"},
    }
    with pytest.raises(ConfigError) as caught:
        from_dict(CompressConfig, values, "run.yaml")
    batch = "seconds_per_batch, min_seconds, max_seconds, buckets, seed, crops"
    dropouts = "projection_dropout, attention_dropout, ffn_dropout, dropout, projection_norm"
    assert [fault.partition("; available: updates")[0] for fault in caught.value.faults] == [
        "data.train is ['x.tsv'], expected a string",
        f"data.batch.bucket: unknown field; available: {batch}",
        "data.batch.buckets is 0, allowed: 1 or more",
        "objective.groups[1][1] is '8', expected an integer or a list of 2",
        f"student.colour: unknown field; available: layers, embed_dim, heads, ffn, {dropouts}",
        "student: no field is given, allowed: any of layers, embed_dim, heads, ffn",
        "stage1.speed: unknown field",
        "stage1.lr is 'fast', expected a number",
        "stage1.keep is 0, allowed: 1 or more",
        "seed is -1, allowed: 0 or more",
        "budget.warmup is 5000, allowed: 0 to stage1.updates (10)",
    ]
    assert str(caught.value) == f"run.yaml: {'; '.join(caught.value.faults)}"


def test_checks_leave_out_fields_that_could_not_be_read():
    """The warm-up would be too long for the default number of updates, but that is not what is wrong."""
    with pytest.raises(ConfigError) as caught:
        from_dict(CompressConfig, MINIMAL | {"stage1": {"updates": "many", "warmup": 60_000}})
    assert caught.value.faults == ("stage1.updates is 'many', expected an integer",)
    with pytest.raises(ConfigError) as caught:
        from_dict(CompressConfig, {"cache_teacher": True, "seed": True})
    assert caught.value.faults == (
        "teacher is missing",
        "data is missing",
        "seed is True, expected an integer",
    )
    with pytest.raises(ConfigError, match=r"run\.yaml: expected a mapping$"):
        from_dict(CompressConfig, [], "run.yaml")


def test_sections_may_be_null():
    values = MINIMAL | {"student": {"layers": [1, 2], "ffn": 8}, "stage1": None}
    config = from_dict(CompressConfig, values)
    assert (config.stage1, config.student) == (None, StudentConfig(layers=(1, 2), ffn=8))
    assert from_dict(CompressConfig, to_dict(config)) == config
    assert from_dict(CompressConfig, MINIMAL | {"student": {"layers": 2}}).student.layers == 2
    assert from_dict(CompressConfig, MINIMAL | {"stage2": None, "student": None}).stage2 is None


def test_faults_of_sections_that_may_be_null():
    values = {"stage1": {"lr": "much", "speed": 1}, "stage2": 5, "student": {"layers": "two", "ffn": 0.5}}
    with pytest.raises(ConfigError) as caught:
        from_dict(CompressConfig, MINIMAL | values)
    for part in (
        "stage1.lr is 'much', expected a number",
        "stage1.speed: unknown field; available: updates, warmup",
        "stage2 is 5, expected a mapping or null",
        "student.layers is 'two', expected an integer or a list or null",
        "student.ffn is 0.5, expected an integer or null",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match=r"student\.embed_dim is 0, allowed"):
        from_dict(CompressConfig, MINIMAL | {"student": {"embed_dim": 0}})


def test_faults_of_a_whole_run():
    with pytest.raises(ConfigError) as caught:
        from_dict(CompressConfig, MINIMAL | {"stage1": None, "stage2": None, "device": "gpu", "seed": -1})
    for part in (
        "device is 'gpu', allowed: auto, cpu, cuda, cuda:N",
        "seed is -1",
        "stage1 and stage2 are both null",
        "stage1 is null without a student",
    ):
        assert part in str(caught.value)


def test_a_file_states_its_difference(tmp_path):
    (tmp_path / "base.yaml").write_text("teacher: a\ndata: {train: x.tsv, valid_batches: 3}\n")
    (tmp_path / "b.yaml").write_text("base: base.yaml\ndata: {train: y.tsv}\nstage1: {lr: 1e-4}\n")
    config = from_dict(CompressConfig, read_yaml(tmp_path / "b.yaml"))
    assert (config.teacher, config.data.train, config.data.valid_batches) == ("a", "y.tsv", 3)
    assert config.stage1.lr == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "holds list"), ("a: [", "not readable as YAML"), ("base: x.yaml\n", "extends itself")],
)
def test_unreadable_yaml(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(tmp_path / "x.yaml")


def shipped():
    return sorted(Path(resources.find("upstream_configs")).glob("*.yaml"))


def test_every_shipped_configuration_is_listed():
    assert len(shipped()) == 19
    table = (resources.find("upstream_configs") / "README.md").read_text(encoding="utf8")
    assert [file.name for file in shipped() if f"`{file.name}`" not in table] == []


@pytest.mark.parametrize("file", shipped(), ids=lambda file: file.stem)
def test_shipped_configurations_are_valid(file):
    config = from_dict(CompressConfig, read_yaml(file))
    assert from_dict(CompressConfig, to_dict(config)) == config
    header = [line for line in file.read_text(encoding="utf8").splitlines() if line.startswith("#")]
    text = " ".join(header)
    command = "demo" if file.stem.startswith("demo") else f"compress {file.stem} --out"
    assert f"s3prl-dphubert {command}" in text
    assert "Cost: " in text
    assert "Expect " in text or "Keeps " in text


@pytest.mark.parametrize(
    ("name", "millions"),
    [("distilhubert", 23.49), ("half_width_12_layers", 26.87), ("full_width_3_layers", 30.58)],
)
def test_baselines_have_their_published_size(name, millions):
    config = from_dict(CompressConfig, read_yaml(resources.find(f"upstream_configs/{name}.yaml")))
    assert config.stage1 is None
    assert round(parameters(config.student.shape(ModelConfig())) / 1e6, 2) == millions


@pytest.mark.parametrize("name", ["demo_distilhubert", "free_superb_distilhubert", "free_superb_half_width"])
def test_small_baselines_have_the_size_of_the_pruned_model(name):
    config = from_dict(CompressConfig, read_yaml(resources.find(f"upstream_configs/{name}.yaml")))
    teacher = load_model(config.teacher).config
    assert config.stage1 is None
    assert 0.245 < parameters(config.student.shape(teacher)) / parameters(teacher) <= 0.25


def test_single_values_can_be_changed():
    values = apply_changes(MINIMAL, ["stage1.updates=20000", "stage2=null", "budget.sparsity={macs: 0.5}"])
    config = from_dict(CompressConfig, values)
    assert config.stage1.updates == 20_000
    assert config.stage2 is None
    assert config.budget.shares == {"macs": 0.5}
    assert config.teacher == "hubert_mini"
    for change, message in (("lr", "FIELD=VALUE"), ("a..b=1", "FIELD=VALUE"), ("seed=[", "not readable")):
        with pytest.raises(ConfigError, match=message):
            apply_changes(MINIMAL, [change])
    with pytest.raises(ConfigError, match=r"stage1\.colour: unknown field"):
        from_dict(CompressConfig, apply_changes(MINIMAL, ["stage1.colour=red"]))


def test_training_faults():
    with pytest.raises(ConfigError) as caught:
        TrainConfig(updates=0, lr=0.0, num_workers=-1)
    assert all(part in str(caught.value) for part in ("updates is 0", "lr is 0.0", "num_workers is -1"))


def test_model_faults():
    with pytest.raises(ConfigError) as caught:
        ModelConfig(conv_channels=(0,) * 7, pos_conv_groups=7, pos_conv_depth=0, ffn=(3, -1), dropout=1.0)
    for part in (
        "conv_channels is",
        "pos_conv_groups is 7",
        "pos_conv_depth is 0",
        "heads has 12 layers and ffn 2",
        "dropout is 1.0",
    ):
        assert part in str(caught.value)


def test_frames_and_receptive_field():
    config = ModelConfig()
    assert config.min_samples == 400
    assert [config.frames(n) for n in (399, 400, 719, 720, 16_000)] == [0, 1, 1, 2, 49]


def test_resources_name_their_neighbours():
    with pytest.raises(resources.ResourceError, match=r"demo\.yaml"):
        resources.find("upstream_configs/nothing.yaml")
    with pytest.raises(resources.ResourceError, match="allowed: a path below"):
        resources.find("../setup.cfg")


def test_what_ships_runs_on_a_gpu_where_there_is_one():
    for path in sorted(resources.find("upstream_configs").glob("*.yaml")):
        assert CompressConfig.create(path).device == "auto", path.name


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_missing_gpu_is_one_line_before_anything_is_read_or_written(tmp_path, monkeypatch, capsys, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "run"
    assert main(["compress", "dphubert_base", "--out", str(out), "--set", f"device={device}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"device is '{device}', and torch sees no GPU here" in line
    assert not out.exists()


def test_a_gpu_beyond_those_of_the_machine_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RunError, match=r"device is 'cuda:2', allowed with the GPUs here: cuda:0 to cuda:1"):
        compress("dphubert_base", tmp_path / "run", device="cuda:2")
