"""Doors of ESPnet and lhotse, on ESPnet's fork of s3prl, in the environment of ``make test-espnet``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
import yaml

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from tests.helpers.hidden_states import assert_parity, scramble
from tests.helpers.models import tiny
from tests.helpers.s3prl_runs import python

pytestmark = pytest.mark.espnet

TOKENS = ["<blank>", "<unk>", "a", "b", "c", "<space>", "<sos/eos>"]
RECIPE = """
frontend: s3prl
frontend_conf:
  frontend_conf: {{upstream: {upstream}, path_or_url: {path}, extra_conf: {extra}}}
  multilayer_feature: true
preencoder: linear
preencoder_conf: {{input_size: 32, output_size: 16}}
encoder: transformer
encoder_conf: {{output_size: 16, attention_heads: 2, linear_units: 16, num_blocks: 1, input_layer: conv2d}}
decoder: transformer
decoder_conf: {{attention_heads: 2, linear_units: 16, num_blocks: 1}}
model_conf: {{ctc_weight: 1.0, extract_feats_in_collect_stats: false}}
normalize: null
init: none
optim: adam
optim_conf: {{lr: 0.01}}
max_epoch: 2
batch_type: unsorted
batch_size: 2
num_workers: 0
keep_nbest_models: 1
freeze_param: {freeze}
"""
FRONTEND = """
import json, sys
import torch, yaml
from espnet2.asr.frontend.s3prl import S3prlFrontend

from s3prl_dphubert import load_model

conf = yaml.safe_load(open("recipe.yaml"))["frontend_conf"]
frontend = S3prlFrontend(**conf).eval()
waveforms, lengths = torch.randn(2, 9000), torch.tensor([9000, 6000])
waveforms[1, 6000:] = 0
features, frames = frontend(waveforms, lengths)
alone, _ = S3prlFrontend(**conf).eval()(waveforms[1:, :6000], lengths[1:])
model = load_model(conf["frontend_conf"]["path_or_url"])
with torch.no_grad():
    states = model.extract_features(waveforms[:1])[0]
    weights = torch.softmax(frontend.featurizer.weights, -1)
    mean = sum(weight * state for weight, state in zip(weights, states))
answer = {
    "size": frontend.output_size(),
    "hop": frontend.hop_length,
    "frames": frames.tolist(),
    "apart": (features[:1, : mean.shape[1]] - mean).abs().max().item(),
    "padding": (features[1, : frames[1]] - alone[0]).abs().max().item(),
    "tensors": len(frontend.pretrained_params),
}
frontend.reload_pretrained_parameters()
frontend(waveforms, lengths)[0].square().mean().backward()
answer["trained"] = sum(p.grad is not None for p in frontend.upstream.parameters())
print("ANSWER " + json.dumps(answer))
"""
LHOTSE = """
import json
import numpy as np
from lhotse.features.ssl import S3PRLSSL, S3PRLSSLConfig

extractor = S3PRLSSL(S3PRLSSLConfig(ssl_model="my_model", layer=-1, frame_shift=0.02, feature_dim=32))
features = extractor.extract(np.random.default_rng(0).standard_normal(16000).astype("float32"), 16000)
print("ANSWER " + json.dumps([list(features.shape), bool(np.isfinite(features).all())]))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("upstream") / "tiny"
    save_model(tiny("hubert"), path)
    return path


def recipe(folder, checkpoint, freeze="[frontend.upstream]", upstream="dphubert_local", path=True):
    text = RECIPE.format(
        upstream=upstream, path=checkpoint if path else "null", extra="{padding: exact}", freeze=freeze
    )
    (folder / "recipe.yaml").write_text(text)


def answer(done):
    return json.loads(done.ok().out.split("ANSWER ")[1])


def test_the_frontend_from_the_yaml_of_a_recipe(tmp_path, checkpoint):
    recipe(tmp_path, checkpoint)
    (tmp_path / "script.py").write_text(FRONTEND)
    report = answer(python("script.py", cwd=tmp_path))
    assert (report["size"], report["hop"], report["frames"]) == (32, 320, [29, 19])
    assert report["apart"] < 1e-5 and report["padding"] < 1e-5
    model = tiny("hubert")
    assert report["tensors"] == len(model.state_dict())
    assert report["trained"] == sum(p.requires_grad for p in model.parameters())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Arguments for a corpus of four utterances of noise in Kaldi's lists."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    for name in ("abc", "cab", "bca", "acb"):
        soundfile.write(folder / f"{name}.wav", generator.standard_normal(16_000) * 0.1, 16_000)
    names = sorted(path.stem for path in folder.glob("*.wav"))
    (folder / "wav.scp").write_text("".join(f"{name} {folder}/{name}.wav\n" for name in names))
    (folder / "text").write_text("".join(f"{name} {name}\n" for name in names))
    (folder / "speech_shape").write_text("".join(f"{name} 16000\n" for name in names))
    (folder / "text_shape").write_text("".join(f"{name} 3\n" for name in names))
    (folder / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    words = ["--token_list", f"{folder}/tokens.txt", "--token_type", "char"]
    for split in ("train", "valid"):
        words += [f"--{split}_data_path_and_name_and_type", f"{folder}/wav.scp,speech,sound"]
        words += [f"--{split}_data_path_and_name_and_type", f"{folder}/text,text,text"]
        words += [f"--{split}_shape_file", f"{folder}/speech_shape"]
        words += [f"--{split}_shape_file", f"{folder}/text_shape"]
    return words


@pytest.mark.parametrize("freeze", [True, False])
def test_a_recipe_trains(freeze, tmp_path, checkpoint, data):
    """ESPnet's own program, with the frontend frozen, and fine-tuned under a name of the user's."""
    if freeze:
        recipe(tmp_path, checkpoint)
        names = {}
    else:
        recipe(tmp_path, checkpoint, "[]", "my_model", path=False)
        (tmp_path / "upstreams.yaml").write_text(f"my_model: {checkpoint}\n")
        names = {"S3PRL_DPHUBERT_UPSTREAMS": str(tmp_path / "upstreams.yaml")}
    words = ["--config", "recipe.yaml", "--output_dir", "exp", *data]
    python("-m", "espnet2.bin.asr_train", *words, cwd=tmp_path, **names).ok()
    trained = torch.load(tmp_path / "exp" / "2epoch.pth", weights_only=True)
    prefix = "frontend.upstream.upstream.model."
    ours = {name.removeprefix(prefix): t for name, t in trained.items() if name.startswith(prefix)}
    before = load_model(checkpoint).state_dict()
    assert ours.keys() == before.keys()
    changed = [name for name in before if not torch.equal(before[name], ours[name])]
    assert not changed if freeze else len(changed) > 40
    assert "frontend.featurizer.weights" in trained


def test_lhotse_extracts_features_by_a_name_of_the_user(tmp_path, checkpoint):
    (tmp_path / "upstreams.yaml").write_text(f"my_model: {checkpoint}\n")
    (tmp_path / "script.py").write_text(LHOTSE)
    done = python("script.py", cwd=tmp_path, S3PRL_DPHUBERT_UPSTREAMS=str(tmp_path / "upstreams.yaml"))
    assert answer(done) == [[50, 32], True]


@pytest.mark.parametrize("shape", ["base", "large"])
def test_a_teacher_of_espnets_own_encoder(shape, tmp_path):
    from espnet2.asr.encoder.hubert_encoder import TorchAudioHuBERTPretrainEncoder

    from tests.checkpoints import test_torchaudio as of_torchaudio
    from tests.checkpoints.test_espnet import TORCHAUDIO, Holder

    settings = TORCHAUDIO | (of_torchaudio.LARGE if shape == "large" else {})
    encoder = scramble(TorchAudioHuBERTPretrainEncoder(input_size=1, num_classes=5, **settings))
    config = {"encoder": "torchaudio_hubert", "encoder_conf": settings, "input_size": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(Holder(encoder=encoder).state_dict(), tmp_path / "valid.loss.ave.pth")
    model = load_model(tmp_path / "valid.loss.ave.pth")
    assert_parity(model, of_torchaudio.runner(encoder.hubert_pretrain_model.wav2vec2))
