"""Teachers from fairseq's, WavLM's and s3prl's files compute what those models compute.

The originals are the copies of fairseq's and WavLM's models that s3prl carries; the files are made
here in every form that fairseq has given them.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import logging
import os

import omegaconf
import pytest
import torch
from s3prl.upstream.data2vec.data2vec_model import Data2VecAudioConfig, Data2VecAudioModel
from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig
from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model
from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

from s3prl_dphubert.checkpoints import fairseq
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.checkpoints.teachers import TEACHERS
from s3prl_dphubert.errors import CheckpointError
from tests.helpers.hidden_states import assert_parity, recorded, scramble

logging.getLogger("s3prl").setLevel(logging.WARNING)

CONVS = "[(12, 10, 5)] + [(12, 3, 2)] * 4 + [(12,2,2)] * 2"
SMALL = {
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "conv_feature_layers": CONVS,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "dropout": 0.11,
    "attention_dropout": 0.12,
    "activation_dropout": 0.13,
    "dropout_input": 0.14,
}
BASE: dict = {}
LARGE = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}
SHAPES = {
    "base": BASE,
    "large": LARGE,
    "norms of large, order of base": {"extractor_mode": "layer_norm"},
    "no projection": {"conv_feature_layers": "[(12, 10, 5), (12, 3, 2), (32, 4, 8)] + [(32, 2, 2)] * 1"},
}


def hubert(**changes):
    config = HubertConfig(label_rate=50, final_dim=8, **{**SMALL, **changes})
    return HubertModel(config, HubertPretrainingConfig(), [range(7)]), config


def wav2vec2(**changes):
    config = Wav2Vec2Config(quantize_targets=True, final_dim=8, latent_vars=4, **{**SMALL, **changes})
    return Wav2Vec2Model(config), config


def data2vec(**changes):
    values = {"extractor_mode": "layer_norm", "conv_pos": 15, "pos_conv_depth": 3}
    config = Data2VecAudioConfig(**{**SMALL, **values, **changes})
    return Data2VecAudioModel(config), config


def wavlm(**changes):
    positions = {"relative_position_embedding": True, "gru_rel_pos": True}
    positions |= {"num_buckets": 16, "max_distance": 30}
    config = WavLMConfig({**SMALL, **positions, **changes})
    return WavLM(config), config


FAMILIES = {"hubert": hubert, "wav2vec2": wav2vec2, "data2vec": data2vec, "wavlm": wavlm}


def values_of(config):
    """A configuration as plain values."""
    return dataclasses.asdict(config) if dataclasses.is_dataclass(config) else dict(vars(config))


def runner(model):
    """``run`` for :func:`assert_parity`: the whole model, or with lengths its parts with a mask of frames."""
    first = model.layer_norm if model.post_extract_proj is None else model.post_extract_proj

    def run(waves, lengths):
        modules = [first, *model.encoder.layers]
        with recorded(modules) as results:
            if lengths is None:
                model.extract_features(waves, padding_mask=None, mask=False)
            else:
                x = model.layer_norm(model.feature_extractor(waves).transpose(1, 2))
                x = x if model.post_extract_proj is None else model.post_extract_proj(x)
                frames = lengths
                for _, kernel, stride in eval(model.shape.conv_feature_layers):
                    frames = (frames - kernel) // stride + 1
                padded = torch.arange(x.shape[1]) >= frames[:, None]
                model.encoder(x, padding_mask=padded)
                results[0][padded] = 0.0
        layers = [results[index].transpose(0, 1) for index in range(1, len(modules))]
        return [results[0], *(layer[:, : results[0].shape[1]] for layer in layers)]

    return run


def made(family, **changes):
    """An original model and its settings."""
    model, config = FAMILIES[family](**changes)
    model.shape = config
    return scramble(model), values_of(config)


class Meter:
    """Stands for the objects that fairseq leaves in its files."""

    def __reduce__(self):
        return os.path.join, ("must", "not run")


def around(state, cfg=None, args=None):
    """A checkpoint as fairseq's trainer writes it."""
    return {
        "args": args,
        "cfg": cfg,
        "model": state,
        "criterion": {},
        "optimizer_history": [{"criterion_name": "HubertCriterion", "num_updates": 400}],
        "task_state": {"dictionaries": [Meter()]},
        "extra_state": {"metrics": collections.OrderedDict(train=[(0, "loss", Meter())])},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}},
    }


def container(model, task):
    return {"cfg": {"_name": None, "common": {"seed": 1}, "model": model, "task": task}}


def node(model, task):
    return {"cfg": omegaconf.OmegaConf.create(container(model, task)["cfg"])}


def namespace(model, task):
    return {"args": argparse.Namespace(arch="hubert", **{**model, **task})}


SETTINGS = {"dict": container, "omegaconf": node, "Namespace": namespace}


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "data2vec"])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_parity(family, shape, tmp_path):
    changes = {"conv_feature_layers": CONVS} if family == "data2vec" and "projection" in shape else {}
    model, values = made(family, **{**SHAPES[shape], **changes})
    task = {"_name": "pretraining", "normalize": "large" in shape}
    state = model.state_dict()
    if family == "data2vec":
        state["_ema"] = {"encoder.layers.0.fc1.weight": torch.ones(1)}
    torch.save(around(state, **container(values, task)), tmp_path / "a.pt")
    teacher = load_model(tmp_path / "a.pt")
    assert_parity(teacher, runner(model))
    config = teacher.config
    assert config.normalize_waveform == ("large" in shape)
    assert (config.dropout, config.attention_dropout) == (0.11, 0.12)
    assert (config.ffn_dropout, config.projection_dropout) == (0.13, 0.14)
    assert config.pos_conv_depth == (3 if family == "data2vec" else 1)


@pytest.mark.parametrize("shape", [*sorted(SHAPES), "no positions"])
def test_wavlm(shape, tmp_path):
    """Without positions it is UniSpeech-SAT, whose files its authors and s3prl load by WavLM's class."""
    none = {"relative_position_embedding": False, "gru_rel_pos": False}
    changes = none if shape == "no positions" else SHAPES[shape]
    model, values = made("wavlm", normalize="large" in shape, **changes)
    torch.save({"cfg": values, "model": model.state_dict()}, tmp_path / "WavLM.pt")
    teacher = load_model(tmp_path / "WavLM.pt")
    assert_parity(teacher, runner(model))
    assert teacher.config.num_buckets == (0 if shape == "no positions" else 16)
    assert teacher.config.normalize_waveform == ("large" in shape)


@pytest.mark.parametrize("form", sorted(SETTINGS))
@pytest.mark.parametrize("zipped", [True, False])
def test_every_form_of_settings(form, zipped, tmp_path):
    model, values = made("hubert", **LARGE)
    content = around(model.state_dict(), **SETTINGS[form](values, {"normalize": True}))
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    teacher = load_model(tmp_path / "a.pt")
    assert teacher.config.normalize_waveform
    assert_parity(teacher, runner(model))


NO_DROPOUT = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "dropout_input"), 0.0)
LARGE_SIZE = {
    "encoder_layers": 24,
    "encoder_embed_dim": 1024,
    "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
}


@pytest.mark.parametrize(
    ("family", "changes", "is_large"),
    [
        ("hubert", {}, True),
        ("hubert", {"dropout": 0.05}, False),
        ("hubert", {"encoder_layers": 23}, False),
        ("wav2vec2", {}, False),
    ],
)
def test_hubert_large_has_the_dropout_of_its_compression_from_any_source(family, changes, is_large):
    """Its own training had none, as fairseq's file says; the model of that name on the Hub has it."""
    sizes = {**LARGE, **LARGE_SIZE, **NO_DROPOUT, **changes}
    with torch.device("meta"):
        model, config = FAMILIES[family](**sizes)
    state, task = model.state_dict(), {"normalize": True}
    without_clusters = {name: t for name, t in state.items() if name != "label_embs_concat"}
    values = values_of(config)
    named = {"_name": family, **values}
    contents = [
        around(state, **container(values, task)),
        around(without_clusters, **container(named, task)),
        {"model_cfg": named, "task_cfg": task, "model_weight": without_clusters},
    ]
    if family == "hubert":
        contents.append(around(without_clusters, args=vars(namespace(values, task)["args"])))
    published = TEACHERS["hubert_large"].dropout
    expected = published if is_large else (0.0, 0.0, 0.0, changes.get("dropout", 0.0))
    for content in contents:
        read, _ = fairseq.read(content, "a.pt")
        assert read.normalize_waveform and read.normalize_eps == 1e-5
        dropout = read.projection_dropout, read.attention_dropout, read.ffn_dropout, read.dropout
        assert dropout == expected


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "data2vec"])
def test_s3prl_conversions(family, tmp_path):
    model, values = made(family)
    content = {"model_cfg": values, "model_weight": model.state_dict(), "dictionaries_symbols": [["a"]]}
    torch.save({**content, "task_cfg": {"normalize": True, "data": "???"}}, tmp_path / "a.pt")
    teacher = load_model(tmp_path / "a.pt")
    assert teacher.config.normalize_waveform
    assert_parity(teacher, runner(model))


@pytest.mark.parametrize("form", sorted(SETTINGS))
@pytest.mark.parametrize("place", ["w2v_encoder", "encoder"])  # of CTC and of seq2seq models
def test_fine_tuned_models(form, place, tmp_path):
    model, values = made("wav2vec2", **LARGE)
    state = {f"{place}.w2v_model.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {f"{place}.proj.weight": torch.ones(5, 32), "decoder.embed.weight": torch.ones(2)}
    nested = SETTINGS[form](values, {"normalize": True})
    outer = {"_name": "wav2vec_ctc", "dropout": 0.5, "w2v_args": nested.get("cfg") or nested["args"]}
    torch.save(around(state, **container(outer, {"normalize": True})), tmp_path / "a.pt")
    teacher = load_model(tmp_path / "a.pt")
    assert teacher.config.normalize_waveform
    assert_parity(teacher, runner(model))
    outer["w2v_args"] = None
    torch.save(around(state, **container(outer, {})), tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="w2v_args"):
        load_model(tmp_path / "b.pt")


def test_both_spellings_of_weight_norm(tmp_path):
    model, values = made("hubert")
    state = model.state_dict()
    new = {name.replace("weight_g", "parametrizations.weight.original0"): t for name, t in state.items()}
    new = {name.replace("weight_v", "parametrizations.weight.original1"): t for name, t in new.items()}
    assert len(set(new) - set(state)) == 2
    torch.save(around(new, **container(values, {})), tmp_path / "a.pt")
    assert_parity(load_model(tmp_path / "a.pt"), runner(model))


def test_fields_of_later_versions_may_be_missing(tmp_path):
    model, values = made("hubert", conv_pos=128, conv_pos_groups=16, dropout=0.1, attention_dropout=0.1)
    fields = {key: values[key] for key in SMALL if key not in ("conv_pos", "conv_pos_groups", "dropout")}
    torch.save(around(model.state_dict(), **container(fields, {})), tmp_path / "a.pt")
    teacher = load_model(tmp_path / "a.pt")
    assert not teacher.config.normalize_waveform
    assert_parity(teacher, runner(model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_fn": "relu"}, "activation_fn is 'relu', allowed: 'gelu'"),
        ({"layer_type": "conformer"}, "layer_type is 'conformer', allowed: 'transformer'"),
        ({"quantize_input": True}, "quantize_input is True"),
        ({"crop_seq_to_multiple": 2}, "crop_seq_to_multiple is 2"),
        ({"extractor_mode": "batch"}, "extractor_mode is 'batch', allowed: default, layer_norm"),
        ({"relative_position_embedding": True}, "gru_rel_pos is false, allowed: true"),
        ({"normalize": "${task.normalize}"}, r"normalize is '\$\{task\.normalize\}', allowed: true, false"),
        ({"encoder_layers": 10**9}, "encoder_layers is 1000000000, allowed: 1 to 1000"),
        ({"encoder_attention_heads": 0}, "encoder_attention_heads is 0"),
        ({"conv_feature_layers": "__import__('os').mkdir('x')"}, "expected a list"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, values = made("hubert")
    torch.save(around(model.state_dict(), **container({**values, **changes}, {})), "a.pt")
    with pytest.raises(CheckpointError, match=message):
        load_model("a.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_tensors_are_all_used_or_named(tmp_path):
    model, values = made("hubert")
    settings = container(values, {})

    def load(state):
        torch.save(around(state, **settings), tmp_path / "a.pt")
        return load_model(tmp_path / "a.pt")

    state = model.state_dict()
    with pytest.raises(CheckpointError, match=r"unknown tensor encoder\.layers\.1\.fc3\.weight"):
        load({**state, "encoder.layers.1.fc3.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"1\.feed_forward\.intermediate_dense\.bias is missing"):
        load({name: t for name, t in state.items() if name != "encoder.layers.1.fc1.bias"})
    with pytest.raises(CheckpointError, match=r"intermediate_dense\.bias has shape \(3,\), expected \(48,\)"):
        load({**state, "encoder.layers.1.fc1.bias": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"fc1\.bias is <posixpath\.join, not run>, expected a tensor"):
        load({**state, "encoder.layers.1.fc1.bias": Meter()})
    with pytest.raises(CheckpointError, match="non-finite"):
        load({**state, "encoder.layers.1.fc1.bias": torch.full((48,), torch.inf)})
    with pytest.raises(CheckpointError, match="expected tensors by name"):
        load([1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": 1}, "holds weights; expected a checkpoint of DPHuBERT"),
        ([1], "holds list; expected"),
        ({"model": {}, "cfg": None, "args": None}, "the settings of the model"),
        ({"model": {}, "cfg": "x"}, "the settings of the model"),
        ({"state_dict": {}, "config": {}}, "is missing"),
    ],
)
def test_other_files(content, message, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "a.pt")


@pytest.mark.parametrize("kernel", [16, 15])
def test_batch_norm_in_the_positional_convolution(kernel, tmp_path):
    """s3prl's copy of fairseq is older than this option, so the block is put together as fairseq does."""
    model, values = made("hubert", conv_pos=kernel)
    norm, (_, *rest) = torch.nn.BatchNorm1d(32), model.encoder.pos_conv
    conv = torch.nn.Conv1d(32, 32, kernel, padding=kernel // 2, groups=4)
    model.encoder.pos_conv = torch.nn.Sequential(norm, conv, *rest)
    scramble(model.encoder.pos_conv)
    generator = torch.Generator().manual_seed(3)
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.2, 3, generator=generator)
    values["conv_pos_batch_norm"] = True
    state = model.state_dict()
    torch.save(around(state, **container(values, {})), tmp_path / "a.pt")
    teacher = load_model(tmp_path / "a.pt")
    assert teacher.config.pos_conv_batch_norm
    assert_parity(teacher, runner(model))
    del state["encoder.pos_conv.0.running_mean"]
    torch.save(around(state, **container(values, {})), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"batch_norm\.running_mean is missing"):
        load_model(tmp_path / "a.pt")


def test_data2vec_2_is_refused_by_name(tmp_path):
    state = {"modality_encoders.AUDIO.alibi_scale": torch.ones(1), "blocks.0.norm1.weight": torch.ones(4)}
    torch.save(around(state, **container({"_name": "data2vec_multi"}, {})), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"data2vec 2\.0 .* \(ALiBi\) .* data2vec 1\.0 can be loaded"):
        load_model(tmp_path / "a.pt")


def test_conv_layers():
    base = [(512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2]
    for text in (
        "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]",
        " [[512, 10, 5], (512,3,2),(512,3,2),(512,3,2),(512,3,2),(512,2,2),(512,2,2)] ",
    ):
        assert fairseq.conv_layers(text) == base
    for text in (
        "[(1,2,3)] * 10**9",
        "[(1,2)]",
        "[1]",
        "(1,2,3)",
        "[(1,2,3)] * -1",
        "x",
        "",
        None,
        "[" * 9999,
    ):
        with pytest.raises(CheckpointError, match="expected a list"):
            fairseq.conv_layers(text)
