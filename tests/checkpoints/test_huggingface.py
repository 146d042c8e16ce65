"""Teachers from directories of Hugging Face's transformers compute what transformers computes."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.dphubert_pth import write
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.checkpoints.teachers import TEACHERS, recognize
from s3prl_dphubert.errors import CheckpointError
from s3prl_dphubert.model.inference.folded import fold
from s3prl_dphubert.pruning.structured import prune
from tests.helpers import hidden_states
from tests.helpers.hidden_states import recorded, scramble
from tests.helpers.models import assert_same, gated, outputs

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (12,) * 7,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 9,
    "hidden_dropout": 0.11,
    "attention_dropout": 0.12,
    "activation_dropout": 0.13,
    "feat_proj_dropout": 0.14,
}
BASE = {"num_conv_pos_embeddings": 16}
LARGE = {"num_conv_pos_embeddings": 15, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
POSITIONS = {"num_buckets": 16, "max_bucket_distance": 30}
HEADS = {"codevector_dim": 16, "proj_codevector_dim": 16, "num_codevectors_per_group": 4}


def hubert(**changes):
    return hf.HubertModel(hf.HubertConfig(**{**SMALL, **BASE, **changes}))


def wav2vec2(**changes):
    return hf.Wav2Vec2Model(hf.Wav2Vec2Config(**{**SMALL, **BASE, **changes}))


def wavlm(**changes):
    return hf.WavLMModel(hf.WavLMConfig(**{**SMALL, **BASE, **POSITIONS, **changes}))


def data2vec(**changes):
    values = {**SMALL, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5, **changes}
    return hf.Data2VecAudioModel(hf.Data2VecAudioConfig(**values))


def unispeech(**changes):
    return hf.UniSpeechModel(hf.UniSpeechConfig(**{**SMALL, **BASE, **changes}))


def unispeech_sat(**changes):
    return hf.UniSpeechSatModel(hf.UniSpeechSatConfig(**{**SMALL, **BASE, **changes}))


FAMILIES = {
    "hubert": hubert,
    "wav2vec2": wav2vec2,
    "wavlm": wavlm,
    "data2vec": data2vec,
    "unispeech": unispeech,
    "unispeech-sat": unispeech_sat,
}
SHAPES = {
    "base": {},
    "base with bias": {"conv_bias": True},
    "large": LARGE | {"conv_bias": True},
    "large without bias": LARGE,
    "norms of large, order of base": LARGE | {"do_stable_layer_norm": False},
    "few convs": {"conv_dim": (8, 10, 12), "conv_kernel": (10, 3, 4), "conv_stride": (5, 4, 8)},
}


def runner(model):
    """``run`` for :func:`assert_parity`: the feature projection and the layers of an original model."""
    model = getattr(model, model.base_model_prefix, model).eval()

    def run(waves, lengths):
        mask = None
        if lengths is not None:
            mask = (torch.arange(waves.shape[1]) < lengths[:, None]).long()
        modules = [model.feature_projection, *model.encoder.layers]
        with recorded(modules) as results:
            model(waves, attention_mask=mask)
        states = [results[index] for index in range(len(modules))]
        if lengths is not None:  # the encoder sets these to 0 after the projection
            frames = lengths
            for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
                frames = (frames - kernel) // stride + 1
            states[0][torch.arange(states[0].shape[1]) >= frames[:, None]] = 0.0
        return states

    return run


def assert_parity(model, run):
    hidden_states.assert_parity(model, run, eps=1e-7)  # as Wav2Vec2FeatureExtractor has it


@pytest.mark.parametrize("loudness", [0.03, 0.003])
@torch.no_grad()
def test_quiet_speech_is_normalised_as_the_feature_extractor_does(tmp_path, loudness):
    original = scramble(hubert(**LARGE))
    original.save_pretrained(tmp_path)
    extractor = hf.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.config.normalize_eps == 1e-7
    waves, lengths = hidden_states.waveforms()
    waves = waves * loudness
    rows = [wave[:length].numpy() for wave, length in zip(waves, lengths, strict=True)]
    values = extractor(rows, sampling_rate=16_000, padding=True, return_tensors="pt").input_values
    expected = runner(original)(values, lengths)
    frames = model.frame_lengths(lengths)
    hidden_states.assert_hidden(model.extract_features(waves, lengths)[0], expected, frames)
    hidden_states.assert_hidden(fold(model).extract_features(waves, lengths)[0], expected, frames)
    with pytest.raises(CheckpointError, match=r"normalize_eps is 1e-07, allowed: 1e-5"):
        write(model, tmp_path / "x.pth")


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_parity(family, shape, tmp_path):
    original = scramble(FAMILIES[family](**SHAPES[shape]))
    original.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert_parity(model, runner(original))
    config = model.config
    assert (config.dropout, config.attention_dropout) == (0.11, 0.12)
    assert (config.ffn_dropout, config.projection_dropout) == (0.13, 0.14)
    layer_norm = family == "data2vec" or "norms" in shape or "large" in shape
    assert config.normalize_waveform == layer_norm
    assert config.extractor_mode == ("layer_norm" if layer_norm else "group_norm")


VARIANTS = {
    "batch norm": (hubert, {"conv_pos_batch_norm": True}),
    "batch norm, large": (hubert, {**LARGE, "conv_pos_batch_norm": True}),
    "25 Hz": (
        hubert,
        {
            "conv_pos_batch_norm": True,
            "conv_dim": (12,) * 8,
            "conv_kernel": (10, 3, 3, 3, 3, 2, 2, 2),
            "conv_stride": (5, 2, 2, 2, 2, 2, 2, 2),
        },
    ),
    "no norm before the projection": (hubert, {"feat_proj_layer_norm": False}),
    "epsilon": (hubert, {"layer_norm_eps": 1e-2}),
    "epsilon, large": (wavlm, {**LARGE, "layer_norm_eps": 1e-2}),
    "epsilon, data2vec": (data2vec, {"layer_norm_eps": 1e-2}),
    "adapters": (wav2vec2, {**LARGE, "conv_bias": True, "adapter_attn_dim": 6}),
    "adapters of hubert": (hubert, {**LARGE, "adapter_attn_dim": 6}),
    "adapters of unispeech": (unispeech, {**LARGE, "adapter_attn_dim": 6}),
    "adapters of unispeech-sat": (unispeech_sat, {**LARGE, "adapter_attn_dim": 6}),
}
"""Parts that few published models have: mHuBERT, DistilHuBERT and MMS among them."""


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name, tmp_path):
    family, changes = VARIANTS[name]
    original = scramble(family(**changes))
    generator = torch.Generator().manual_seed(3)
    for statistic, tensor in original.named_buffers():
        if statistic.endswith("running_mean"):
            tensor.normal_(generator=generator)
        elif statistic.endswith("running_var"):
            tensor.uniform_(0.2, 3, generator=generator)
    original.save_pretrained(tmp_path / "original")
    model = load_model(tmp_path / "original")
    assert_parity(model, runner(original))
    assert model.config.stride == (640 if name == "25 Hz" else 320)
    if changes.get("adapter_attn_dim"):
        assert sum("adapter" in each for each in model.state_dict()) == 3 * 6
    save_model(model, tmp_path / "ours")
    assert_same(outputs(load_model(tmp_path / "ours")), outputs(model), 0.0)
    student = gated(model)
    assert_same(outputs(prune(student)), outputs(model, student.gates.masks()))
    with pytest.raises(CheckpointError, match="the published format cannot express the model: "):
        write(model, tmp_path / "x.pth")


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "data2vec"])
def test_fields_that_other_families_ignore_change_nothing(family, tmp_path):
    ignored = {"feat_proj_layer_norm": False, "conv_pos_batch_norm": True, "adapter_attn_dim": 6}
    original = scramble(FAMILIES[family](**ignored))
    original.save_pretrained(tmp_path)
    assert_parity(load_model(tmp_path), runner(original))


CLASSES = (
    "HubertForCTC",
    "HubertForSequenceClassification",
    "Wav2Vec2ForCTC",
    "Wav2Vec2ForPreTraining",
    "Wav2Vec2ForXVector",
    "WavLMForCTC",
    "WavLMForXVector",
    "WavLMForAudioFrameClassification",
    "UniSpeechForPreTraining",
    "UniSpeechSatForCTC",
    "UniSpeechSatForXVector",
    "Data2VecAudioForCTC",
    "Data2VecAudioForSequenceClassification",
)


@pytest.mark.parametrize("name", CLASSES)
def test_models_with_heads(name, tmp_path):
    kind = getattr(hf, name)
    positions = {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5} if "Data2Vec" in name else BASE
    config = kind.config_class(**SMALL, **positions, **HEADS, use_weighted_layer_sum=True)
    original = scramble(kind(config))
    original.save_pretrained(tmp_path)
    prefix = original.base_model_prefix + "."
    assert any(not key.startswith(prefix) for key in load_file(tmp_path / "model.safetensors"))
    assert_parity(load_model(tmp_path), runner(original))


def test_copies_of_published_models_are_read_as_those(tmp_path):
    """Their preprocessor normalises and their dropout is of a fine-tuning; the training had neither."""
    scramble(hubert()).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 16000}')
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"_name_or_path": "facebook/hubert-base-ls960"}))
    copy = load_model(tmp_path).config
    assert (copy.normalize_waveform, copy.ffn_dropout, copy.projection_dropout) == (False, 0.0, 0.1)
    fine_tuned = {"_name_or_path": "facebook/hubert-base-ls960", "architectures": ["HubertForCTC"]}
    for changes in ({"_name_or_path": "user/hubert-base-ls960"}, fine_tuned):
        path.write_text(json.dumps(values | changes))
        other = load_model(tmp_path).config
        assert (other.normalize_waveform, other.ffn_dropout, other.projection_dropout) == (True, 0.13, 0.14)


def test_a_base_model_with_group_norm_is_fairseqs():
    base = hf.HubertConfig(architectures=["HubertModel"]).to_dict()
    assert recognize(base) is TEACHERS["hubert_base"]
    assert not recognize(base).normalize
    assert recognize(hf.WavLMConfig(architectures=["WavLMModel"]).to_dict()) is TEACHERS["wavlm_base"]
    pre_trained = hf.Wav2Vec2Config(architectures=["Wav2Vec2ForPreTraining"]).to_dict()
    assert recognize(pre_trained) is TEACHERS["wav2vec2_base"]
    for changes in (
        {"feat_extract_norm": "layer"},  # which transformers can pre-train, too
        {"num_hidden_layers": 6},
        {"architectures": ["HubertForCTC"]},
    ):
        assert recognize(base | changes) is None
    large = {"feat_extract_norm": "layer", "_name_or_path": "facebook/hubert-large-ll60k"}
    assert recognize(base | large).dropout == (0.1, 0.1, 0.0, 0.1)


@pytest.fixture
def original(tmp_path):
    model = scramble(wav2vec2(**LARGE))
    model.save_pretrained(tmp_path / "model")
    return model


def state_of(folder):
    return load_file(folder / "model.safetensors")


def replace_weights(folder, state, name="pytorch_model.bin", **options):
    (folder / "model.safetensors").unlink()
    if name.endswith(".bin"):
        torch.save(state, folder / name, **options)
    else:
        save_file(state, folder / name)


@pytest.mark.parametrize("new_format", [True, False])
def test_pytorch_bin(original, tmp_path, new_format):
    folder = tmp_path / "model"
    replace_weights(folder, state_of(folder), _use_new_zipfile_serialization=new_format)
    assert_parity(load_model(folder), runner(original))


def test_safetensors_are_preferred(original, tmp_path):
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"not read")
    assert_parity(load_model(tmp_path / "model"), runner(original))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(original, tmp_path, kind):
    folder = tmp_path / "model"
    state = state_of(folder)
    names = sorted(state)
    (folder / "model.safetensors").unlink()
    stem = "model" if kind == "safetensors" else "pytorch_model"
    index = {}
    for number in range(3):
        file = f"{stem}-{number + 1:05d}-of-00003.{kind}"
        part = {name: state[name] for name in names[number::3]}
        index |= dict.fromkeys(part, file)
        save_file(part, folder / file) if kind == "safetensors" else torch.save(part, folder / file)
    path = folder / f"{stem}.{kind}.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert_parity(load_model(folder), runner(original))
    (folder / file).rename(folder / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{file}', which .* lists, is missing"):
        load_model(folder)
    path.write_text(json.dumps({"weight_map": {"x": "../secret.bin"}}))
    with pytest.raises(CheckpointError, match=r"'\.\./secret\.bin', which"):
        load_model(folder)
    path.write_text(json.dumps({"weight_map": [1]}))
    with pytest.raises(CheckpointError, match="no weight_map"):
        load_model(folder)


def test_both_spellings_of_weight_norm(original, tmp_path):
    folder = tmp_path / "model"
    state = state_of(folder)
    conv = "encoder.pos_conv_embed.conv."
    new = {f"{conv}parametrizations.weight.original0": "weight_g"}
    new |= {f"{conv}parametrizations.weight.original1": "weight_v"}
    assert set(new) <= set(state)
    for name, old in new.items():
        state[conv + old] = state.pop(name)
    replace_weights(folder, state)
    assert_parity(load_model(folder), runner(original))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(original, tmp_path, dtype):
    folder = tmp_path / "model"
    replace_weights(folder, {name: tensor.to(dtype) for name, tensor in state_of(folder).items()})
    original.to(dtype).float()
    model = load_model(folder)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert_parity(model, runner(original))


@pytest.mark.parametrize(
    ("shape", "file", "normalizes"),
    [
        ({}, None, False),
        (LARGE, None, True),
        ({}, {"do_normalize": True}, True),
        (LARGE, {"do_normalize": False, "sampling_rate": 16_000}, False),
        ({}, {"feature_size": 1}, True),  # what transformers takes for a file without it
    ],
)
def test_normalisation(shape, file, normalizes, tmp_path):
    original = scramble(hubert(**shape))
    original.save_pretrained(tmp_path)
    if file is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(file))
    model = load_model(tmp_path)
    assert model.config.normalize_waveform == normalizes
    assert_parity(model, runner(original))


def test_adapters_after_the_encoder_are_left_out(tmp_path):
    original = scramble(wav2vec2(add_adapter=True))
    original.save_pretrained(tmp_path)
    assert any(name.startswith("adapter.") for name in state_of(tmp_path))
    assert_parity(load_model(tmp_path), runner(original))


def test_a_config_without_the_newer_fields(tmp_path):
    original = scramble(wavlm(conv_dim=(512,) * 7, num_buckets=320, max_bucket_distance=800))
    original.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    old_config = {key: values[key] for key in ("model_type", *SMALL, *BASE) if key != "conv_dim"}
    (tmp_path / "config.json").write_text(json.dumps(old_config))
    assert_parity(load_model(tmp_path), runner(original))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hubert(hidden_act="relu"), "hidden_act is 'relu', allowed: 'gelu'"),
        (lambda: wavlm(feat_extract_activation="silu"), "feat_extract_activation is 'silu'"),
        (lambda: data2vec(num_conv_pos_embeddings=1), "num_conv_pos_embeddings is 1"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(make, message, tmp_path):
    make().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def test_heads_of_any_kind_are_passed_over(original, tmp_path):
    """Models of emotion, age or speaker have heads of their own beside the encoder."""
    folder = tmp_path / "model"
    state = state_of(folder)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink(missing_ok=True)
    alone = load_model(folder).state_dict()
    headed = {f"wav2vec2.{name}": tensor for name, tensor in state.items()}
    headed |= {"age.dense.weight": torch.ones(3, 3), "gender.out_proj.bias": torch.ones(2)}
    torch.save(headed, folder / "pytorch_model.bin")
    loaded = load_model(folder).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in alone.items())


def test_tensors_are_all_used_or_named(original, tmp_path):
    folder = tmp_path / "model"
    state = state_of(folder)
    moved = dict(state)
    moved["encoder.layers.0.attention.new_proj.weight"] = moved.pop("encoder.layers.1.layer_norm.bias")
    replace_weights(folder, moved)
    with pytest.raises(CheckpointError, match=r"unknown tensor .*layers\.0\.attention\.new_proj\.weight"):
        load_model(folder)
    del moved["encoder.layers.0.attention.new_proj.weight"]
    torch.save(moved, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"layers\.1\.layer_norm\.bias is missing"):
        load_model(folder)
    headed = {f"wav2vec2.{name}": tensor for name, tensor in moved.items()}
    torch.save(headed, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"layers\.1\.layer_norm\.bias is missing"):
        load_model(folder)
    torch.save([1, 2], folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="expected tensors by name"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json: not readable as JSON"),
        ("config.json", "[]", "config.json: holds list, expected a mapping"),
        ("config.json", '{"model_type": "bert"}', "model_type is 'bert', allowed: dphubert, hubert"),
        ("config.json", '{"model_type": "hubert", "num_attention_heads": 0}', "num_attention_heads is 0"),
        ("config.json", '{"model_type": "hubert", "num_hidden_layers": 1e9}', "layers is 1000000000.0"),
        ("config.json", '{"model_type": "hubert", "hidden_size": "wide"}', "model"),
        ("config.json", None, "config.json is missing"),
        ("preprocessor_config.json", '{"sampling_rate": 8000}', "sampling_rate is 8000, allowed: 16000"),
        ("preprocessor_config.json", '{"do_normalize": 1}', "do_normalize is 1"),
        ("model.safetensors", None, "model.safetensors or pytorch_model.bin is missing"),
        ("model.safetensors", "cut", "not readable as safetensors"),
    ],
)
def test_damaged_directories(original, tmp_path, name, text, message):
    path = tmp_path / "model" / name
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "model")
