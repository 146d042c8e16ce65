"""Folded models as modules: they can be moved, copied, saved and loaded, but neither cast nor trained."""

from __future__ import annotations

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from s3prl_dphubert import fold
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model import SpeechModel
from s3prl_dphubert.pruning.structured import prune
from tests.helpers.models import SHAPES, gated, tiny

PRECISIONS = ("fp32", "bf16", "fp16")


def hidden(model, num_layers=None):
    waveforms = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    return torch.stack(model.extract_features(waveforms, torch.tensor([4000, 3000]), num_layers)[0])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_copies_and_saved_weights_give_the_same_hidden_states(shape, precision):
    for model, other in ((tiny(shape), tiny(shape, seed=1)), (prune(gated(tiny(shape))),) * 2):
        folded = fold(model, precision)
        expected = hidden(folded)
        assert isinstance(folded, nn.Module)
        assert torch.equal(
            torch.stack(folded(torch.ones(1, 800))[0]),
            torch.stack(folded.extract_features(torch.ones(1, 800))[0]),
        )
        assert torch.equal(hidden(copy.deepcopy(folded)), expected)
        whole, weights = io.BytesIO(), io.BytesIO()
        torch.save(folded, whole)
        torch.save(folded.state_dict(), weights)
        assert torch.equal(hidden(torch.load(io.BytesIO(whole.getvalue()), weights_only=False)), expected)
        loaded = fold(other, precision)
        assert other is model or not torch.equal(hidden(loaded), expected)
        loaded.load_state_dict(torch.load(io.BytesIO(weights.getvalue()), weights_only=True))
        assert torch.equal(hidden(loaded), expected)


def test_loading_leaves_the_original_alone():
    """Its weights share memory with the folded model, also where that is part of another module."""
    for wrap in (lambda module: module, nn.Sequential):
        model = tiny("wavlm")
        before = hidden(model)
        folded = wrap(fold(model))
        folded.load_state_dict(wrap(fold(tiny("wavlm", seed=1))).state_dict())
        assert torch.equal(hidden(model), before)


@pytest.mark.parametrize("shape", SHAPES)
def test_shares_the_memory_of_all_weights_that_stay_as_they_are(shape):
    model = SpeechModel(replace(tiny(shape).config, ffn=(32,) * 3))
    folded = fold(model)
    original = {parameter.data_ptr() for parameter in model.parameters()}
    rebuilt = {name for name, p in folded.named_parameters() if p.data_ptr() not in original}
    attention = {f"layers.{i}.attention.qkv.{kind}" for i in range(3) for kind in ("weight", "bias")}
    spectra = {name for name in folded.state_dict() if name.endswith("spectrum")}
    convs = {f"extractor.others.{i}.weight" for i in range(6)} | {"extractor.weight"}
    assert rebuilt == attention | spectra | convs
    assert spectra


@pytest.mark.parametrize("precision", PRECISIONS)
def test_moves_as_a_whole_and_leaves_the_original_where_it_is(precision):
    model = tiny("wavlm")
    folded = fold(model, precision)
    before = hidden(folded)
    assert folded.to("cpu") is folded
    assert torch.equal(hidden(folded), before)
    folded.to("meta")
    assert {tensor.device.type for tensor in folded.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    assert torch.equal(hidden(fold(model, precision)), before)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_runs_on_a_gpu(shape, precision):
    model = tiny(shape)
    expected = hidden(model)
    folded = fold(model, precision).to("cuda")
    waveforms = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)).cuda()
    states, frames = folded.extract_features(waveforms, torch.tensor([4000, 3000]).cuda())
    limit = 1e-3 if precision == "fp32" else 0.02
    for state, other in zip(states, expected, strict=True):
        for row, wanted, count in zip(state.cpu(), other, frames.tolist(), strict=True):
            assert (row[:count] - wanted[:count]).norm() < limit * wanted[:count].norm()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_number_types_are_fixed(precision):
    model = tiny("wavlm")
    folded = fold(model, precision)
    types = {name: tensor.dtype for name, tensor in folded.state_dict().items()}
    message = f"a model folded in {precision} keeps its number types; fold again with another precision"
    for change in (nn.Module.half, nn.Module.double, nn.Module.bfloat16, lambda m: nn.Sequential(m).half()):
        with pytest.raises(ConfigError, match=message):
            change(folded)
    if precision == "fp32":
        folded.float().to("cpu", torch.float32)
    else:
        with pytest.raises(ConfigError, match=message):
            folded.float()
    assert {name: tensor.dtype for name, tensor in folded.state_dict().items()} == types


def test_parameters_are_frozen():
    """A head on top can be trained; the folded model stays as it is, in either mode."""
    folded = fold(tiny("hubert"))
    before = hidden(folded)
    parameters = dict(folded.named_parameters())
    assert list(parameters) == list(folded.state_dict())
    assert not any(parameter.requires_grad for parameter in parameters.values())
    assert not folded.training
    with pytest.raises(ConfigError, match="a folded model cannot be trained; train the model"):
        folded.requires_grad_()
    assert folded.requires_grad_(False) is folded
    both = nn.ModuleDict({"upstream": folded, "head": nn.Linear(32, 2)}).train()
    optimizer = torch.optim.SGD(both.parameters(), lr=1.0)
    weight = both["head"].weight.detach().clone()
    both["head"](both["upstream"](torch.randn(1, 4000))[0][-1]).square().sum().backward()
    optimizer.step()
    assert not torch.equal(both["head"].weight, weight)
    assert torch.equal(hidden(folded), before)


def test_refuses_other_models():
    with pytest.raises(ConfigError, match=r"model is a (Student|GatedModel), allowed: a SpeechModel"):
        fold(gated(tiny("hubert")))
    with pytest.raises(ConfigError, match="model is a FoldedModel, allowed: a SpeechModel"):
        fold(fold(tiny("hubert")))
    with pytest.raises(ConfigError, match=r"model has weights in torch.float16, allowed: torch.float32"):
        fold(tiny("hubert").half())
