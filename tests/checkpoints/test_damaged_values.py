"""Values of any kind in checkpoints and configurations end in one printable line of this package's errors."""

from __future__ import annotations

import json

import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.dphubert_pth import load_student
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import DPHubertError
from s3prl_dphubert.pruning.latency import read_table
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.upstream.options import Options
from s3prl_dphubert.utils.config_io import apply_changes, read_yaml
from tests.helpers import foreign_checkpoints
from tests.helpers.golden import GOLDEN
from tests.helpers.models import tiny

DEEP = "[" * 200_000
DIGITS = "9" * 5000
GATE = f"encoder.transformer.layers.{DIGITS}.attention.hard_concrete_for_heads.log_alpha"
CONTROL = "\x1b[2Ja\nb\u2028c"


def directory(folder, **values):
    place = save_model(tiny("hubert"), folder / "model")
    path = place / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return place


def text(folder, name, content):
    path = folder / name
    path.write_text(content, encoding="utf8")
    return path


def config_text(content):
    def read(folder):
        place = directory(folder)
        text(place, "config.json", content)
        load_model(place)

    return read


def config_values(**values):
    return lambda folder: load_model(directory(folder, **values))


def shards(names):
    def read(folder):
        values, _ = foreign_checkpoints.transformers()
        text(folder, "config.json", json.dumps(values))
        text(folder, "model.safetensors.index.json", json.dumps({"weight_map": {"x": names}}))
        load_model(folder)

    return read


def a_pth(change):
    def read(folder):
        content = torch.load(GOLDEN / "hubert_post_norm_pruned.pth", weights_only=True)
        change(content)
        torch.save(content, folder / "a.pth")
        load_model(folder / "a.pth")

    return read


def a_pretraining(**changes):
    def read(folder):
        config = tiny("hubert").config.to_dict()
        recipe = {"stage": 1, "gates": {}, "budget": {"sparsity": 0.5}}
        content = {
            "DPHuBERT": {"module": tiny("hubert").state_dict(), "full_costs": {"parameters": 10}},
            "Upstream_Config": {"recipe": recipe, "shape": config, "updates1": None},
            "Step": 3,
        }
        for path, value in changes.items():
            place, _, name = path.rpartition("__")
            (content["Upstream_Config"]["recipe"] if place == "recipe" else content["DPHuBERT"])[name] = value
        torch.save(content, folder / "states-3.ckpt")
        load_model(folder / "states-3.ckpt")

    return read


def a_yaml(content, reader=read_yaml):
    return lambda folder: reader(text(folder, "a.yaml", content))


def gated(value):
    def read(folder):
        content = torch.load(GOLDEN / "hubert_gated.pth", weights_only=True)
        name = next(name for name in content["state_dict"] if "hard_concrete" in name)
        content["state_dict"][name] = value
        torch.save(content, folder / "a.pth")
        load_student(folder / "a.pth")

    return read


CASES = {
    "a gate that is a list": gated([1]),
    "a gate of one number": gated(torch.ones(())),
    "deep config.json": config_text(DEEP),
    "long number in config.json": config_text(DIGITS),
    "wide number in config.json": config_text('{"embed_dim": ' + DIGITS + "}"),
    "config.json that is no UTF-16": config_text("\ufeff{}"),
    "integers beyond 64 bits": config_values(conv_channels=[2**70] * 7),
    "a shape beyond all memory": config_values(embed_dim=2**63, pos_conv_groups=1),
    "a mapping as a number": config_values(embed_dim={"a": [1]}),
    "a kind with control characters": config_values(model_type=CONTROL),
    "an unknown field with control characters": config_values(**{CONTROL: 1}),
    "a name of 5,000 letters in an index": shards("x" * 5000),
    "a name with a zero in an index": shards("x\0"),
    "a list as a tensor": a_pth(lambda c: c["state_dict"].update({next(iter(c["state_dict"])): [1]})),
    "a name that is a number": a_pth(lambda c: c["state_dict"].update({3: torch.ones(1)})),
    "a layer of 5,000 digits": a_pth(lambda c: c["state_dict"].update({GATE: torch.ones(1)})),
    "a tensor with control characters": a_pth(lambda c: c["state_dict"].update({CONTROL: torch.ones(1)})),
    "text as a number of layers": a_pth(lambda c: c["config"].update(encoder_num_layers="x")),
    "a mapping as heads": a_pth(lambda c: c["config"].update(encoder_num_heads={})),
    "nothing as conv layers": a_pth(lambda c: c["config"].update(extractor_conv_layer_config=None)),
    "text as a cost": a_pretraining(full_costs={"parameters": "x"}),
    "no cost": a_pretraining(full_costs={}),
    "a stage of text": a_pretraining(recipe__stage="x"),
    "kinds that are mappings": a_pretraining(recipe__gates={"kinds": ["a", {"b": "c"}]}),
    "deep YAML": a_yaml(DEEP),
    "a long number in YAML": a_yaml(f"a: {DIGITS}"),
    "broken YAML": a_yaml("a: [1\nb: }\n"),
    "a number as base": a_yaml("base: 3"),
    "a list as base": a_yaml("base: [a]"),
    "a base of 5,000 letters": a_yaml("base: " + "x" * 5000),
    "a base with a zero": a_yaml('base: "a\\0"'),
    "a date that is none": a_yaml("a: 2001-99-99"),
    "a tag that does not fit": a_yaml("a: !!bool maybe"),
    "options that are deep": a_yaml(DEEP, lambda path: Options.read(path, {})),
    "an option with control characters": a_yaml('"\\e[2J": 1', lambda path: Options.read(path, {})),
    "an option of two lines": a_yaml('"a\\nb": 1', lambda path: Options.read(path, {})),
    "a deep setting": lambda folder: apply_changes({}, [f"a={DEEP}"]),
    "a long number as setting": lambda folder: apply_changes({}, [f"a={DIGITS}"]),
    "a deep table": lambda folder: read_table(str(text(folder, "t.json", DEEP))),
    "a long number in a table": lambda folder: read_table(str(text(folder, "t.json", DIGITS))),
    "a deep score": lambda folder: score_file.read(text(folder, "score.json", DEEP)),
    "a long number in a score": lambda folder: score_file.read(text(folder, "score.json", DIGITS)),
    "a name of 5,000 letters": lambda folder: load_model("x/" + "y" * 5000 + ".pth"),
    "a name with a zero": lambda folder: load_model("x\0"),
}


@pytest.mark.parametrize("name", CASES)
def test_values_of_any_kind_end_in_one_printable_line(name, tmp_path):
    with pytest.raises(DPHubertError) as caught:
        CASES[name](tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 4100
