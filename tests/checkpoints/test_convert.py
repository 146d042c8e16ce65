"""``convert``: from any format to a checkpoint directory or a released file, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.checkpoints.teachers import TEACHERS
from s3prl_dphubert.cli import main
from s3prl_dphubert.model import SpeechModel
from s3prl_dphubert.utils import resources
from tests.helpers.golden import GOLDEN
from tests.helpers.models import assert_same, outputs, tiny


@pytest.mark.parametrize("source", ["hubert_mini", str(GOLDEN / "wavlm_pruned.pth")])
@pytest.mark.parametrize("target", ["model", "sub/model.pth"])
def test_round_trip(source, target, tmp_path, capsys):
    assert main(["convert", source, str(tmp_path / target)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / target)
    assert_same(outputs(load_model(source)), outputs(load_model(tmp_path / target)), 1e-6)


def test_card_and_type(tmp_path):
    source = str(GOLDEN / "wavlm_pruned.pth")
    assert main(["convert", source, str(tmp_path / "half"), "--dtype", "float16"]) == 0
    assert {t.dtype for t in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float16}
    card = (tmp_path / "half" / "README.md").read_text()
    assert f"| source | {source} |" in card
    assert "| 2 | 1 | 3 | 7 |" in card
    assert main(["convert", source, str(tmp_path / "half.pth"), "--dtype", "bfloat16"]) == 0
    state = torch.load(tmp_path / "half.pth", weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


def test_what_is_added_is_said(tmp_path, capsys):
    config = replace(tiny("hubert").config, heads=((0,), (), (0,)), ffn=(3, 3, 0))
    save_model(SpeechModel(config), tmp_path / "model")
    assert main(["convert", str(tmp_path / "model"), str(tmp_path / "a.pth")]) == 0
    text = capsys.readouterr().out
    layers = "encoder.transformer.layers"
    for part in (f"{layers}.1.attention.q_proj", f"{layers}.2.feed_forward.output_dense"):
        assert part in text
    added = sum(p.numel() for p in load_model(tmp_path / "a.pth").parameters())
    added -= sum(p.numel() for p in load_model(tmp_path / "model").parameters())
    assert f"{added:,} parameters added" in text


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("nothing", "a", "nothing: no such file or directory; expected a path"),
        ("hubert_mini", "there", "there: exists already"),
        ("hubert_mini", "there.pth", "there.pth: exists already"),
        ("data2vec", "a.pth", "pos_conv_depth is 3, allowed: 1"),
        ("torchaudio:NONE", "a", "torchaudio:NONE: no such bundle"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(source, target, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_model(tiny("data2vec"), "data2vec")
    (tmp_path / "there").mkdir()
    (tmp_path / "there.pth").touch()
    assert main(["convert", source, target]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("s3prl-dphubert: ")
    assert message in error
    assert (tmp_path / "there.pth").stat().st_size == 0


def test_teachers_of_the_shipped_runs_are_known():
    names = set()
    for path in resources.find("upstream_configs").rglob("*.yaml"):
        names |= {line.split()[1] for line in path.read_text().splitlines() if line.startswith("teacher: ")}
    assert len(names) >= 5
    assert names <= set(TEACHERS)
