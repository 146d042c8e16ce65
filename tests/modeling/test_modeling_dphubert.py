"""Checkpoints open with transformers' Auto classes in processes that cannot import this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s3prl_dphubert.checkpoints import native_transformers
from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.model.masks import Masks
from s3prl_dphubert.pruning.structured import cut
from tests.helpers import hub_server
from tests.helpers.models import SHAPES, assert_same, outputs, tiny

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("s3prl_dphubert", "s3prl", "tests"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import json
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
from transformers import AutoModelForAudioClassification, AutoModelForCTC, pipeline
trusted = {"trust_remote_code": True}
"""


def answer(program: str, folder: Path, *arguments: str, **environment: str):
    """Run a user's program in a process of its own; what it prints last, as JSON."""
    own = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", ALONE + program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **own},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def pruned(shape: str):
    """A model with a layer without heads, one without units, one without attention; ragged convolutions."""
    generator = torch.Generator().manual_seed(3)
    conv = {layer: (torch.rand(12, generator=generator) > 0.3).float() for layer in range(7)}
    heads = {0: torch.zeros(4), 1: torch.tensor([1.0, 0.0, 1.0, 0.0])}
    ffn = {1: torch.zeros(24), 2: (torch.rand(24, generator=generator) > 0.5).float()}
    model = cut(tiny(shape), Masks(conv=conv, heads=heads, ffn=ffn, attention={2: torch.zeros(1)}))
    assert (model.config.heads, model.config.ffn[1]) == (((), (0, 2), None), 0)
    assert len(set(model.config.conv_channels)) > 2
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of every family, dense and pruned, beside inputs and the hidden states that they have here."""
    folder = tmp_path_factory.mktemp("models")
    waveforms = torch.randn(2, 4000, generator=torch.Generator().manual_seed(7)) * torch.tensor(
        [[0.05], [0.5]]
    )
    waveforms[1, 2500:] = 0
    lengths = torch.tensor([4000, 2500])
    for shape in SHAPES:
        for name, model in ((shape, tiny(shape)), (f"{shape}-pruned", pruned(shape))):
            save_model(model, folder / name)
            with torch.no_grad():
                whole, _ = model.extract_features(waveforms)
                padded, frames = model.extract_features(waveforms, lengths)
            save_model(model, folder / "half" / name, dtype=torch.float16)
            tensors = {"waveforms": waveforms, "lengths": lengths, "frames": frames}
            tensors |= {f"whole{index}": state for index, state in enumerate(whole)}
            tensors |= {f"padded{index}": state for index, state in enumerate(padded)}
            save_file(
                {key: tensor.clone() for key, tensor in tensors.items()}, folder / f"{name}.safetensors"
            )
    return folder


HIDDEN_STATES = """
differences = {}
for name in sys.argv[1:]:
    ours = load_file(f"{name}.safetensors")
    extractor = AutoFeatureExtractor.from_pretrained(name, **trusted)
    model, info = AutoModel.from_pretrained(name, output_loading_info=True, **trusted)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    assert not model.training and model.config._attn_implementation == "sdpa"
    assert extractor.sampling_rate == 16000
    assert extractor.do_normalize == model.config.normalize_waveform
    waves = [wave.numpy() for wave in ours["waveforms"]]
    cut = [wave[:length] for wave, length in zip(waves, ours["lengths"])]
    options = {"sampling_rate": 16000, "return_tensors": "pt"}
    worst = 0.0
    with torch.no_grad():
        whole = model(extractor(waves, **options)["input_values"], output_hidden_states=True)
        batch = extractor(cut, padding=True, **options)
        assert batch["attention_mask"].sum(-1).tolist() == ours["lengths"].tolist()
        padded = model(**batch, output_hidden_states=True)
        assert model(**batch).hidden_states is None
        assert torch.equal(model(**batch, return_dict=False)[0], padded[0])
    for kind, result in (("whole", whole), ("padded", padded)):
        states = result.hidden_states
        assert len(states) == model.config.num_hidden_layers + 1 == 4
        for index, state in enumerate(states):
            frames = ours["frames"] if kind == "padded" else [state.shape[1]] * len(state)
            for row, other, valid in zip(state, ours[f"{kind}{index}"], frames):
                worst = max(worst, (row[:valid] - other[:valid]).abs().max().item())
        last = states[-1]
        if model.config.layer_norm_first:
            last = model.encoder.transformer.layer_norm(last)
        assert torch.equal(result.last_hidden_state, last)
    differences[name] = worst
print(json.dumps(differences))
"""


def test_hidden_states_are_ours_with_and_without_padding(folder):
    names = sorted(path.name for path in folder.glob("*/") if (path / "config.json").is_file())
    assert len(names) == 2 * len(SHAPES)
    differences = answer(HIDDEN_STATES, folder, *names)
    assert set(differences) == set(names)
    assert max(differences.values()) < 1e-5, differences


TRAINING = """
result = {}
torch.manual_seed(0)
name = sys.argv[1]
config = AutoConfig.from_pretrained(name, **trusted)
result["config"] = [config.hidden_size, config.num_hidden_layers, config.inputs_to_logits_ratio]
waves, mask = torch.randn(2, 4000), torch.ones(2, 4000, dtype=torch.long)
mask[1, 2500:] = 0
ctc = AutoModelForCTC.from_pretrained(name, vocab_size=7, ctc_loss_reduction="mean", **trusted)
ctc.freeze_feature_encoder()
frozen = {n for n, p in ctc.named_parameters() if not p.requires_grad}
result["frozen"] = sorted({n.split(".")[1] for n in frozen})
def gradients():
    ctc.zero_grad()
    torch.manual_seed(1)
    out = ctc.train()(waves, attention_mask=mask, labels=torch.tensor([[1, 2, 3], [4, -100, -100]]))
    out.loss.backward()
    return {n: p.grad.clone() for n, p in ctc.named_parameters() if p.requires_grad}
plain = gradients()
result["logits"] = list(ctc(waves).logits.shape)
ctc.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
stored = gradients()
result["checkpointing"] = max((plain[n] - stored[n]).abs().max().item() for n in plain)
ctc.gradient_checkpointing_disable()
ctc.config.mask_time_prob = ctc.config.mask_feature_prob = 0.4
torch.manual_seed(0)
masked, seen = ctc.dphubert(waves, output_hidden_states=True).hidden_states[0], ctc.eval()
result["masked"] = (masked == 0).float().mean().item()
result["unmasked"] = (ctc.dphubert(waves, output_hidden_states=True).hidden_states[0] == 0).sum().item()
ctc.save_pretrained("ctc")
again = AutoModelForCTC.from_pretrained("ctc", **trusted).eval()
result["saved"] = (again(waves).logits - ctc(waves).logits).abs().max().item()
for weighted in (False, True):
    options = {"num_labels": 5, "use_weighted_layer_sum": weighted, **trusted}
    classifier = AutoModelForAudioClassification.from_pretrained(name, **options)
    out = classifier(waves, attention_mask=mask, labels=torch.tensor([1, 4]))
    out.loss.backward()
    missing = [n for n, p in classifier.named_parameters() if p.grad is None]
    result[f"classes {weighted}"] = [list(out.logits.shape), missing]
    alone = classifier.eval()(waves[1:, :2500]).logits
    assert torch.isfinite(alone).all()
half = AutoModel.from_pretrained(name, dtype=torch.bfloat16, **trusted)(waves.bfloat16(), attention_mask=mask)
result["half"] = str(half.last_hidden_state.dtype)
attentions = ctc.eval()(waves, attention_mask=mask, output_attentions=True).attentions
result["attentions"] = [list(each.shape) for each in attentions]
result["padded"] = max(each[1, ..., 8:].max().item() if each.numel() else 0 for each in attentions)
result["sums"] = max((each.sum(-1) - 1).abs().max().item() if each.numel() else 0 for each in attentions)
result["none"] = ctc(waves).attentions is None
print(json.dumps(result))
"""


@pytest.mark.parametrize("name", ["hubert-pruned", "wavlm-pruned", "large-pruned"])
def test_heads_train_and_are_saved(folder, tmp_path, name):
    result = answer(TRAINING, tmp_path, str(folder / name))
    assert result["config"] == [32, 3, 320]
    assert result["frozen"] == ["feature_extractor"]
    assert result["logits"] == [2, 12, 7]
    assert result["checkpointing"] < 1e-6
    assert 0.3 < result["masked"] < 0.8
    assert result["unmasked"] == 0
    assert result["saved"] == 0
    for weighted in (False, True):
        assert result[f"classes {weighted}"] == [[2, 5], []]
    assert result["half"] == "torch.bfloat16"
    assert result["attentions"] == [[2, heads, 12, 12] for heads in (0, 2, 0)]
    assert result["padded"] == 0 and result["sums"] < 1e-5 and result["none"]
    assert_same(outputs(load_model(tmp_path / "ctc")), outputs(load_model(folder / name)), 1e-6)


ATTENTIONS = """
result = {}
waves, mask = torch.randn(2, 4000), torch.ones(2, 4000, dtype=torch.long)
mask[1, 2500:] = 0
waves[1, 2500:] = 0
batch = {"input_values": waves, "attention_mask": mask}
for name in sys.argv[1:]:
    eager = {"attn_implementation": "eager", "output_attentions": True}
    theirs = AutoModel.from_pretrained(f"native/{name}", **eager).eval()(**batch).attentions
    ours = AutoModel.from_pretrained(name, **eager, **trusted).eval()(**batch)
    fused = AutoModel.from_pretrained(name, **trusted).eval()(**batch, output_attentions=True)
    assert torch.equal(ours.last_hidden_state, fused.last_hidden_state)
    pairs = list(zip(theirs, ours.attentions, fused.attentions, strict=True))
    if "wavlm" in name:  # transformers returns the mean over the heads there
        pairs = [(one.mean(1), two.mean(1), three.mean(1)) for one, two, three in pairs]
    ends = (12, 7)
    result[name] = max(
        (one[row, ..., :end, :end] - other[row, ..., :end, :end]).abs().max().item()
        for one, *others in pairs for other in others for row, end in enumerate(ends)
    )
    fused.attentions[-1].square().sum().backward()
print(json.dumps(result))
"""


def test_attention_weights_are_those_of_transformers(folder):
    """The eager attention of its own classes, for models that both can hold."""
    names = ["hubert", "wavlm", "large"]
    for name in names:
        native_transformers.write(load_model(folder / name), folder / "native" / name)
    differences = answer(ATTENTIONS, folder, *names)
    assert set(differences) == set(names)
    assert max(differences.values()) < 1e-6, differences


PIPELINE = """
import numpy as np
from transformers import pipeline
name = sys.argv[1]
wave = np.random.default_rng(0).standard_normal(4000).astype("float32")
pipe = pipeline("feature-extraction", model=name, **trusted)
features = pipe(wave, return_tensors=True)
extractor = AutoFeatureExtractor.from_pretrained(name, **trusted)
with torch.no_grad():
    model = AutoModel.from_pretrained(name, **trusted)
    expected = model(**extractor(wave, sampling_rate=16000, return_tensors="pt")).last_hidden_state
result = {"difference": (features - expected).abs().max().item(), "lists": np.shape(pipe(wave))}
result["resampled"] = np.shape(pipe({"array": wave, "sampling_rate": 8000}))
classifier = AutoModelForAudioClassification.from_pretrained(name, num_labels=3, **trusted)
classify = pipeline("audio-classification", model=classifier, feature_extractor=extractor)
result["labels"] = sorted(each["label"] for each in classify(wave))
result["half"] = str(AutoModel.from_pretrained(f"half/{name}", **trusted).dtype)
try:
    AutoModel.from_pretrained(name, trust_remote_code=False)
except ValueError as error:
    result["untrusted"] = "trust_remote_code" in str(error)
print(json.dumps(result))
"""


def test_pipelines(folder):
    result = answer(PIPELINE, folder, "large-pruned")
    assert result["difference"] < 1e-6
    assert (result["lists"], result["resampled"]) == ([1, 12, 32], [1, 24, 32])
    assert result["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert result["half"] == "torch.float32"  # as load_model has it
    assert result["untrusted"]


HUB = """
model = AutoModelForCTC.from_pretrained("user/encoder", vocab_size=7, **trusted).eval()
extractor = AutoFeatureExtractor.from_pretrained("user/encoder", **trusted)
model.push_to_hub("user/recognizer")
extractor.push_to_hub("user/recognizer")
again = AutoModelForCTC.from_pretrained("user/recognizer", **trusted).eval()
assert AutoFeatureExtractor.from_pretrained("user/recognizer", **trusted).normalize_eps == 1e-5
waves = torch.randn(1, 4000)
print(json.dumps((model(waves).logits - again(waves).logits).abs().max().item()))
"""


def test_hub_ids_load_and_are_pushed(folder, tmp_path, monkeypatch):
    with hub_server.served() as hub:
        files = {path.name: path.read_bytes() for path in (folder / "large-pruned").iterdir()}
        hub.repos["user/encoder"] = hub_server.Repo(files)
        places = hub_server.environment(hub, tmp_path)
        online = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_anything", "HF_HUB_DISABLE_XET": "1"}
        assert answer(HUB, tmp_path, **places, **online) == 0
        pushed = hub.repos["user/recognizer"].files
        assert {"config.json", "model.safetensors", "modeling_dphubert.py"} <= pushed.keys()
        assert pushed["modeling_dphubert.py"] == files["modeling_dphubert.py"]
        hub_server.use(hub, tmp_path / "ours", monkeypatch)
        ours = outputs(load_model("user/recognizer"))
    assert_same(ours, outputs(load_model(folder / "large-pruned")), 1e-6)


def test_directories_from_before_are_read(tmp_path):
    folder = save_model(tiny("wavlm"), tmp_path / "model")
    for name in ("modeling_dphubert.py", "preprocessor_config.json"):
        (folder / name).unlink()
    values = json.loads((folder / "config.json").read_text())
    for name in ("architectures", "auto_map", "custom_pipelines", "dtype"):
        del values[name]
    (folder / "config.json").write_text(json.dumps(values))
    assert_same(outputs(load_model(folder)), outputs(tiny("wavlm")), 0)
    assert not any("parametrizations" in name for name in load_file(folder / "model.safetensors"))
