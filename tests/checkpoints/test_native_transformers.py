"""Dense models go back to transformers' own classes, which compute what they computed before."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.checkpoints.native_transformers import write
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import CheckpointError
from s3prl_dphubert.model import SpeechModel
from tests.checkpoints.test_huggingface import LARGE, data2vec, hubert, wav2vec2, wavlm
from tests.helpers.hidden_states import scramble, waveforms
from tests.helpers.models import assert_same, outputs, tiny

hf = pytest.importorskip("transformers")

ORIGINALS = {
    "hubert": lambda: hubert(),
    "hubert large": lambda: hubert(**LARGE, conv_bias=True),
    "hubert with batch norm": lambda: hubert(conv_pos_batch_norm=True, feat_proj_layer_norm=False),
    "wav2vec2": lambda: wav2vec2(),
    "wav2vec2 with adapters": lambda: wav2vec2(**LARGE, adapter_attn_dim=4),
    "wavlm": lambda: wavlm(layer_norm_eps=1e-6),
    "wavlm large": lambda: wavlm(**LARGE),
    "data2vec": lambda: data2vec(),
}


@pytest.mark.parametrize("name", sorted(ORIGINALS))
@torch.no_grad()
def test_there_and_back(name, tmp_path, capsys):
    original = scramble(ORIGINALS[name]())
    original.save_pretrained(tmp_path / "theirs")
    kind = original.config.model_type
    options = ["--model-type", kind] if kind == "wav2vec2" else []
    source, target = str(tmp_path / "theirs"), str(tmp_path / "back")
    assert main(["convert", source, str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), target, "--format", "transformers", *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == target
    again, info = hf.AutoModel.from_pretrained(target, output_loading_info=True)
    assert type(again) is type(original)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    waves, lengths = waveforms()
    mask = (torch.arange(waves.shape[1]) < lengths[:, None]).long()
    for inputs in ({}, {"attention_mask": mask}):
        expected = original(waves, **inputs).last_hidden_state
        torch.testing.assert_close(
            again.eval()(waves, **inputs).last_hidden_state, expected, atol=1e-5, rtol=1e-5
        )
    for field in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        assert getattr(again.config, field) == getattr(original.config, field)
    extractor = hf.AutoFeatureExtractor.from_pretrained(target)
    assert extractor.do_normalize == (kind == "data2vec-audio" or "large" in name or "adapters" in name)
    assert_same(outputs(load_model(target)), outputs(load_model(source)), 1e-5)
    card = (tmp_path / "back" / "README.md").read_text()
    assert "trust_remote_code" not in card and "AutoModel" in card


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"heads": ((0, 1, 2, 3), (0, 2), None)},
            None,
            "layer 1 has 2 of 4 heads, allowed: all; layer 2 has no att",
        ),
        (
            {"ffn": (24, 0, 23)},
            None,
            "layer 1 has no feed-forward units, allowed: as many in all layers; layer 2 has 23",
        ),
        ({}, "wavlm", "model_type is 'wavlm', allowed for this one: hubert, wav2vec2"),
        (
            {"pos_conv_batch_norm": True},
            "wav2vec2",
            "pos_conv_batch_norm is True, allowed for wav2vec2: False",
        ),
        ({"projection_norm": False}, "wav2vec2", "projection_norm is False, allowed for wav2vec2: True"),
        ({"head_dim": 4}, None, "head_dim is 4, allowed: 8"),
    ],
)
def test_what_the_classes_cannot_hold_is_refused(changes, kind, message, tmp_path):
    model = SpeechModel(replace(tiny("hubert").config, **changes))
    with pytest.raises(CheckpointError, match=message):
        write(model, tmp_path / "a", kind)
    assert list(tmp_path.iterdir()) == []


def test_a_scale_is_refused(tmp_path):
    model = tiny("hubert")
    model.feature_extractor.dummy_weight.data[2] = 0.5
    with pytest.raises(CheckpointError, match=r"dummy_weight is not 1 throughout"):
        write(model, tmp_path / "a")


def test_half_precision_and_existing_targets(tmp_path):
    model = tiny("wavlm")
    folder = write(model, tmp_path / "half", dtype=torch.float16)
    sizes = [
        path.stat().st_size
        for path in (
            folder / "model.safetensors",
            save_model(model, tmp_path / "whole") / "model.safetensors",
        )
    ]
    assert sizes[0] < 0.6 * sizes[1]
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["WavLMModel"]
    with pytest.raises(CheckpointError, match="exists already"):
        write(model, folder)
