"""A GPU gives the hidden states and gradients of the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.model import SpeechModel
from s3prl_dphubert.model.compilation import CompiledFunction
from s3prl_dphubert.model.speech_model import autocast
from s3prl_dphubert.pruning.structured import prune
from tests.helpers.devices import DEVICES
from tests.helpers.models import SHAPES, gated, tiny


@pytest.mark.cuda
@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_and_gradients_are_those_of_the_cpu(shape):
    waveforms, lengths = torch.randn(2, 4000, generator=torch.Generator().manual_seed(7)), (4000, 2500)
    states, gradients = [], []
    for device in ("cpu", "cuda"):
        model = tiny(shape).to(device)
        hidden, frames = model.extract_features(waveforms.to(device), torch.tensor(lengths, device=device))
        torch.stack([state[1, : frames[1]].square().mean() for state in hidden]).sum().backward()
        states.append([state[row, : frames[row]].cpu() for state in hidden for row in (0, 1)])
        gradients.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    for one, other in (states, gradients):
        assert len(one) == len(other) > 4
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)


@pytest.fixture
def full_float32(monkeypatch):
    """cuDNN multiplies float32 in TF32 by default, which keeps 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
def test_hidden_states_are_those_of_float64(full_float32, device, shape, pruned):
    """Of whole and of padded batches, in every precision."""
    model = prune(gated(tiny(shape))) if pruned else tiny(shape)
    waveforms = torch.randn(2, 4000, generator=torch.Generator().manual_seed(7))
    exact = copy.deepcopy(model).double()
    model.to(device)
    for lengths in (None, torch.tensor([4000, 2500])):
        with torch.no_grad():
            expected, frames = exact.extract_features(waveforms.double(), lengths)
        for precision, tolerance in {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}.items():
            with torch.no_grad(), autocast(torch.device(device), precision):
                states, _ = model.extract_features(waveforms.to(device), lengths)
            assert len(states) == len(expected) == 4
            for state, other in zip(states, expected, strict=True):
                for row, length in enumerate([None, None] if frames is None else frames):
                    a, b = state[row, :length].double().cpu(), other[row, :length]
                    assert float((a - b).norm() / b.norm()) < tolerance, (precision, row)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_masked_student_is_the_pruned_model(full_float32, device, shape):
    student = gated(tiny(shape)).to(device)
    waveforms = torch.randn(2, 4000, generator=torch.Generator().manual_seed(7)).to(device)
    with torch.no_grad():
        masked = student.extract_features(waveforms)[0]
        cut = prune(student).extract_features(waveforms)[0]
    assert len(masked) == 4
    for a, b in zip(masked, cut, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.cuda
@pytest.mark.parametrize("heads", [(0, 1, 2, 3), (0, 2)])
def test_compiled_models_are_the_plain_ones(full_float32, heads):
    """WavLM's, whose position biases a compiled teacher never writes down."""
    config = replace(
        tiny("wavlm").config, embed_dim=64, head_dim=16, heads=(heads,) * 3, attention_dropout=0.0
    )
    torch.manual_seed(0)
    model = SpeechModel(config).cuda().eval()
    compiled = CompiledFunction(model.extract_features)
    for samples in (4000, 5200, 6400):
        waveforms = torch.randn(2, samples, device="cuda")
        for context in (torch.no_grad(), torch.enable_grad()):
            with context:
                states, expected = compiled(waveforms)[0], model.extract_features(waveforms)[0]
            assert compiled.compiled is not None  # the compiler has not failed
            assert len(states) == 4
            for a, b in zip(states, expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    both = []
    for function in (compiled, model.extract_features):
        model.zero_grad()
        torch.stack([state.square().mean() for state in function(waveforms)[0]]).sum().backward()
        both.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(both[0]) == len(both[1]) > 40
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)
