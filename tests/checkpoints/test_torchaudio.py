"""Teachers from torchaudio's models and bundles compute what torchaudio computes."""

from __future__ import annotations

import sys
import urllib.error

import pytest
import torch
import torchaudio
from torchaudio.models import hubert_pretrain_model, wav2vec2_model, wavlm_model
from torchaudio.pipelines import Wav2Vec2ASRBundle, Wav2Vec2Bundle

from s3prl_dphubert.checkpoints import hub
from s3prl_dphubert.checkpoints import torchaudio as converter
from s3prl_dphubert.checkpoints.key_mapping import KeyMapping
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.checkpoints.teachers import TEACHERS
from s3prl_dphubert.errors import CheckpointError
from tests.helpers.hidden_states import assert_parity, normalised, scramble, waveforms

SMALL = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [(12, 10, 5), (12, 3, 2), (12, 3, 4), (12, 4, 8)],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 32,
    "encoder_projection_dropout": 0.14,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 3,
    "encoder_num_heads": 4,
    "encoder_attention_dropout": 0.12,
    "encoder_ff_interm_features": 48,
    "encoder_ff_interm_dropout": 0.13,
    "encoder_dropout": 0.11,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05,
    "aux_num_out": None,
}
LARGE = {
    "extractor_mode": "layer_norm",
    "extractor_conv_bias": True,
    "encoder_layer_norm_first": True,
    "encoder_pos_conv_kernel": 15,
}
MAKERS = {
    "wav2vec2": (wav2vec2_model, {}),
    "wavlm": (wavlm_model, {"encoder_num_buckets": 16, "encoder_max_distance": 30}),
}


def make(family, **changes):
    maker, more = MAKERS[family]
    return scramble(maker(**{**SMALL, **more, **changes}))


def convert(model):
    """As a bundle of this model would be loaded."""
    from s3prl_dphubert.model.state_dict import build_model

    config, state = converter.read(model, "test")
    return build_model(config, state, "test")


def runner(model):
    """torchaudio leaves out entry 0, the output of the feature projection.

    Its WavLM refuses lengths although its layers take a mask, which is given to them here.
    """
    transformer = model.encoder.transformer

    def run(waves, lengths):
        features, frames = model.feature_extractor(waves, lengths)
        first, _ = model.encoder._preprocess(features, frames)
        if lengths is None or not hasattr(transformer.layers[0].attention, "gru_rel_pos"):
            return [first, *model.extract_features(waves, lengths)[0]]
        padded = torch.arange(first.shape[1]) >= frames[:, None]
        x, bias, states = transformer._preprocess(first), None, [first]
        for layer in transformer.layers:
            x, bias = layer(x, position_bias=bias, key_padding_mask=padded)
            states.append(x)
        return states

    return run


@pytest.mark.parametrize("family", sorted(MAKERS))
@pytest.mark.parametrize("shape", ["base", "large"])
def test_parity(family, shape):
    original = make(family, **(LARGE if shape == "large" else {}), aux_num_out=7)
    model = convert(original)
    assert_parity(model, runner(original))
    config = model.config
    assert (config.dropout, config.attention_dropout) == (0.11, 0.12)
    assert (config.ffn_dropout, config.projection_dropout) == (0.13, 0.14)
    assert not config.normalize_waveform


def test_wrapped_models_normalise():
    original = make("wav2vec2", **LARGE)
    model = convert(torchaudio.pipelines._wav2vec2.utils._extend_model(original, normalize_waveform=True))
    assert model.config.normalize_waveform
    assert_parity(model, runner(original))
    waves, _ = waveforms()
    with torch.no_grad():
        ours, theirs = model(waves)[0], original.extract_features(normalised(waves))[0]
    torch.testing.assert_close(ours[1:], theirs, atol=1e-4, rtol=1e-4)


MASKING = {
    "mask_prob": 0.8,
    "mask_selection": "static",
    "mask_other": 0.0,
    "mask_length": 10,
    "no_mask_overlap": False,
    "mask_min_space": 1,
    "mask_channel_prob": 0.0,
    "mask_channel_selection": "static",
    "mask_channel_other": 0.0,
    "mask_channel_length": 10,
    "no_mask_channel_overlap": False,
    "mask_channel_min_space": 1,
    "skip_masked": False,
    "skip_nomask": False,
    "feature_grad_mult": 0.1,
}
"""Options of torchaudio's models for pre-training that its encoders do not have."""


def test_pretraining_models():
    values = {key: value for key, value in SMALL.items() if key != "aux_num_out"}
    original = scramble(hubert_pretrain_model(**values, **MASKING, num_classes=5, final_dim=8))
    assert_parity(convert(original), runner(original.wav2vec2))


def test_old_spelling_of_weight_norm():
    original = make("wav2vec2")
    conv = original.encoder.transformer.pos_conv_embed.conv
    g, v = (getattr(conv.parametrizations.weight, f"original{i}").detach().clone() for i in (0, 1))
    torch.nn.utils.parametrize.remove_parametrizations(conv, "weight")
    with pytest.warns(FutureWarning):
        torch.nn.utils.weight_norm(conv, dim=2)
    conv.weight_g.data, conv.weight_v.data = g, v
    assert "encoder.transformer.pos_conv_embed.conv.weight_g" in original.state_dict()
    assert_parity(convert(original), runner(original))


def test_other_modules_and_unknown_tensors():
    with pytest.raises(CheckpointError, match="Linear is not a wav2vec2"):
        convert(torch.nn.Linear(2, 2))
    original = make("wav2vec2")
    original.encoder.extra = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"unknown tensor encoder\.extra\.weight"):
        convert(original)
    with pytest.raises(CheckpointError, match="tensor b is there twice"):
        KeyMapping({"a|b": "x"}).translate({"a": torch.ones(1), "b": torch.ones(1)}, "test")


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    """Two small bundles; their weights are where a download would put them."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()

    def add(name, family, kind=Wav2Vec2Bundle, normalize=False, **changes):
        original = make(family, **changes)
        torch.save(original.state_dict(), tmp_path / "checkpoints" / f"{name}.pth")
        maker = {"wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}[family]
        values = {**SMALL, **MAKERS[family][1], **changes}
        labels = {"_labels": tuple("abcd")} if kind is Wav2Vec2ASRBundle else {}
        if labels:
            values["aux_num_out"] -= 3
        bundle = kind(f"{name}.pth", values, 16_000, normalize, maker, **labels)
        monkeypatch.setattr(torchaudio.pipelines, name, bundle, raising=False)
        return original

    return add


def test_bundles(bundles):
    original = bundles("TINY", "wavlm", normalize=True, **LARGE)
    model = load_model("torchaudio:TINY")
    assert model.config.normalize_waveform
    assert_parity(model, runner(original))
    original = bundles("TINY_ASR", "wav2vec2", Wav2Vec2ASRBundle, aux_num_out=7)
    assert_parity(load_model("torchaudio:TINY_ASR"), runner(original))


def test_a_bundle_of_a_teacher_has_its_published_dropout(bundles):
    """HuBERT Large was trained without any, and is compressed with that of the published recipe."""
    none = dict.fromkeys(("encoder_projection_dropout", "encoder_attention_dropout", "encoder_dropout"), 0.0)
    for name, expected in (("HUBERT_LARGE", (0.1, 0.1, 0.0, 0.1)), ("TINY", (0.0, 0.0, 0.0, 0.0))):
        bundles(name, "wav2vec2", normalize=True, encoder_ff_interm_dropout=0.0, **none, **LARGE)
        config = load_model(f"torchaudio:{name}").config
        dropout = config.projection_dropout, config.attention_dropout, config.ffn_dropout, config.dropout
        assert dropout == expected and config.normalize_waveform


def test_bundles_that_cannot_be_had(bundles, tmp_path, monkeypatch):
    with pytest.raises(hub.DownloadError, match=r"HUBERT_BASES: no such bundle; available: HUBERT_ASR_LARGE"):
        load_model("torchaudio:HUBERT_BASES")
    bundles("TINY", "wav2vec2")
    path = tmp_path / "checkpoints" / "TINY.pth"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(hub.DownloadError, match=r"file in .*checkpoints is damaged .*; remove it"):
        load_model("torchaudio:TINY")
    path.unlink()

    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(hub.DownloadError, match=r"TINY: cannot fetch its weights .*not known.* local file"):
        load_model("torchaudio:TINY")


def test_bundles_that_hold_code_are_refused(bundles, tmp_path):
    class Boom:
        def __reduce__(self):
            return (tmp_path / "executed").touch, ()

    bundles("TINY", "wav2vec2")
    torch.save({"x": Boom()}, tmp_path / "checkpoints" / "TINY.pth")
    with pytest.raises(hub.DownloadError, match="damaged"):
        load_model("torchaudio:TINY")
    assert not (tmp_path / "executed").exists()


def test_every_published_bundle_is_understood(monkeypatch):
    """Of the bundles that torchaudio ships, without their weights: all shapes convert."""
    known = {
        name: bundle
        for name, bundle in vars(torchaudio.pipelines).items()
        if isinstance(bundle, Wav2Vec2Bundle)
    }
    assert len(known) >= 30
    shapes = set()
    for bundle in known.values():
        with torch.device("meta"):
            values = {**bundle._params, "encoder_num_layers": 2, "encoder_pos_conv_kernel": 4}
            model = torchaudio.pipelines._wav2vec2.utils._get_model(bundle._model_type, values)
        shapes.add(converter.read_config(model, bundle._normalize_waveform))
    assert len({shape.embed_dim for shape in shapes}) >= 3
    assert {shape.num_buckets for shape in shapes} == {0, 320}


def test_named_teachers_are_as_the_bundles_say():
    """torchaudio carries the same models with the settings of their training."""
    bundles = {name: name.upper() for name in TEACHERS if name not in ("hubert_mini", "data2vec_base")}
    assert len(bundles) == 7
    for name, bundle in bundles.items():
        values = getattr(torchaudio.pipelines, bundle)
        keys = ("projection", "attention", "ff_interm")
        dropout = [values._params[f"encoder_{key}_dropout"] for key in keys]
        if name == "hubert_large":  # trained without dropout, compressed with that of the published recipe
            assert TEACHERS[name].dropout == (0.1, 0.1, 0.0, 0.1)
        else:
            assert (*dropout, values._params["encoder_dropout"]) == TEACHERS[name].dropout
        assert values._normalize_waveform == TEACHERS[name].normalize


def test_a_bundle_without_torchaudio_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(
        CheckpointError, match=r"torchaudio:HUBERT_BASE: torchaudio cannot be imported .*\[torchaudio\]"
    ):
        load_model("torchaudio:HUBERT_BASE")
