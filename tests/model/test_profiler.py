"""Profiles add up, part by part, to what the whole model costs; inspect says what a checkpoint is."""

from __future__ import annotations

import time

import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.checkpoints.model_card import kind
from s3prl_dphubert.cli import main
from s3prl_dphubert.model import SpeechModel
from s3prl_dphubert.model.cost import mac_parts, macs, parameter_parts, parameters, superb_macs
from s3prl_dphubert.model.profiler import part_times, parts
from s3prl_dphubert.pruning.structured import prune
from tests.helpers.golden import GOLDEN
from tests.helpers.models import FAMILIES, SHAPES, gated, tiny


def rows_of(markdown):
    """First cell -> other cells of a Markdown table."""
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def number(text):
    return float(text.replace(",", ""))


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_the_modules_and_add_up(family):
    assert len(FAMILIES) == 8
    config = FAMILIES[family]
    with torch.device("meta"):
        model = SpeechModel(config)
    real = {name: sum(p.numel() for p in module.parameters()) for name, module in parts(model).items()}
    real["rest"] = sum(p.numel() for p in model.parameters()) - sum(real.values())
    assert parameter_parts(config) == real
    assert list(mac_parts(config, 16_000)) == list(real)
    assert len(real) == 7 + 2 + config.num_layers + 1
    assert real["rest"] >= config.conv_channels[-1] + 2 * config.embed_dim
    assert sum(mac_parts(config, 16_000).values()) == macs(config, 16_000)


@pytest.mark.parametrize("shape", SHAPES)
def test_parts_of_pruned_models(shape):
    student = gated(tiny(shape), kinds=("conv", "heads", "ffn", "attention", "feed_forward"))
    student.gates.groups["attention"]["1"].log_alpha.data.fill_(-20)
    model = prune(student)
    real = {name: sum(p.numel() for p in module.parameters()) for name, module in parts(model).items()}
    counted = parameter_parts(model.config)
    assert {name: counted[name] for name in real} == real
    assert sum(counted.values()) == sum(p.numel() for p in model.parameters())


def test_times_are_those_of_the_parts():
    """A part that sleeps takes longer, the others do not; nothing stays attached to the model."""
    model = tiny("wavlm")
    layer = model.encoder.transformer.layers[1]
    slow = layer.final_layer_norm.register_forward_pre_hook(lambda *_: time.sleep(0.2))
    times = part_times({"a": model, "b": tiny("hubert")}, seconds=0.5, repeats=3)
    slow.remove()
    assert list(times) == ["a", "b"]
    assert list(times["a"]) == [*parts(model), "rest"]
    assert times["a"]["layer 2"] >= 0.2
    others = [took for name, took in times["a"].items() if name != "layer 2"]
    assert all(0 <= took < 0.2 for took in [*others, *times["b"].values()])
    with pytest.raises(ValueError, match="waveforms has shape"):
        part_times({"a": model}, seconds=0.01)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in parts(model).values())


def test_profile_by_layers(capsys, tmp_path):
    paths = [GOLDEN / "wavlm_pruned.pth", save_model(tiny("data2vec"), tmp_path / "model")]
    options = ["--layers", "--seconds", "0.5", "--repeats", "1"]
    assert main(["profile", *map(str, paths), *options]) == 0
    sections = capsys.readouterr().out.split("## ")[1:]
    assert len(sections) == len(paths)
    for path, section in zip(paths, sections, strict=True):
        config = load_model(path).config
        assert section.startswith(str(path))
        rows = rows_of(section)
        assert rows.pop("part")[2] == "MACs of 0.5 s"
        total = rows.pop("total")
        assert list(rows) == list(parameter_parts(config))
        assert number(total[0]) == parameters(config) == sum(number(row[0]) for row in rows.values())
        assert number(total[2]) == macs(config, 8000) == sum(number(row[2]) for row in rows.values())
        assert number(total[4]) == pytest.approx(sum(number(row[4]) for row in rows.values()), abs=0.1)
        for column in (1, 3, 5):
            assert sum(float(row[column]) for row in rows.values()) == pytest.approx(100, abs=1)


def test_profile_prints_every_bucket(capsys):
    assert main(["profile", str(GOLDEN / "wavlm_pruned.pth"), "--seconds", "0.5", "--repeats", "1"]) == 0
    rows = rows_of(capsys.readouterr().out)
    buckets = superb_macs(load_model(GOLDEN / "wavlm_pruned.pth").config)
    assert len(buckets) == 4
    for bucket, count in buckets.items():
        assert number(rows[f"SUPERB MACs, {bucket}"][0]) == count
    assert number(rows["SUPERB MACs"][0]) == sum(buckets.values())
    assert any(name.startswith("real-time factor (0.5 s") for name in rows)
    assert main(["profile", str(GOLDEN / "wavlm_pruned.pth"), "--repeats", "0"]) == 2
    assert "--repeats is 0, allowed: 1 or more" in capsys.readouterr().err


def test_inspect_tells_sizes(capsys, tmp_path):
    model = tiny("data2vec")
    for dtype, width in ((None, 4), (torch.float16, 2)):
        path = save_model(model, tmp_path / str(width), dtype=dtype)
        assert main(["inspect", str(path)]) == 0
        lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line)
        shown = {name: value.strip() for name, value in lines.items()}
        count = sum(p.numel() for p in model.parameters())
        assert shown["model"] == "data2vec, post-norm, dense, 3 layers of width 32"
        assert number(shown["parameters"]) == count
        assert number(shown["SUPERB MACs"]) == sum(superb_macs(model.config).values())
        assert shown["bytes in memory"] == f"{4 * count:,} in float32, {2 * count:,} in float16"
        disk = sum(file.stat().st_size for file in path.iterdir())
        assert number(shown["bytes on disk"]) == disk > width * count


def test_kinds_of_models():
    assert [kind(config).rsplit(",", 1)[0] for config in FAMILIES.values()] == [
        "HuBERT or wav2vec 2.0, post-norm, dense",
        "HuBERT or wav2vec 2.0, pre-norm, dense",
        "HuBERT or wav2vec 2.0, post-norm, dense",
        "HuBERT or wav2vec 2.0, pre-norm, dense",
        "WavLM, post-norm, dense",
        "WavLM, pre-norm, dense",
        "data2vec, post-norm, dense",
        "data2vec, post-norm, dense",
    ]
    pruned = prune(gated(tiny("wavlm"))).config
    assert kind(pruned) == "WavLM, post-norm, pruned, 3 layers of width 32"
