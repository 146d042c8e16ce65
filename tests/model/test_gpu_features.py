"""Hidden states on a GPU without numbers: devices, types and waits of whole models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.model import SpeechModel
from s3prl_dphubert.model.inference.folded import fold
from s3prl_dphubert.model.speech_model import AUTOCAST, autocast
from s3prl_dphubert.pruning.structured import prune
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.models import SHAPES, gated, tiny

pytestmark = pytest.mark.slow
CUDA = torch.device("cuda")


@pytest.mark.parametrize("shape", SHAPES)
def test_lengths_on_the_host_spare_a_wait(shape):
    model, lengths = prune(gated(tiny(shape))), torch.tensor([4000, 2500])
    with fake_cuda() as waits:
        model.to(CUDA)
        waveforms = torch.zeros(2, 4000, device=CUDA)
        waits.found.clear()
        states, frames = model.extract_features(waveforms, lengths)
        assert waits.found == []
        assert {state.device.type for state in states} == {"cuda"}
        assert len(states) == 4
        assert frames.device.type == "cpu"
        waits.answer = 2500
        _, frames = model.extract_features(waveforms, lengths.to(CUDA))
        assert set(waits.found) == {"copy from cpu to cuda", "_local_scalar_dense"}
        assert frames.device.type == "cuda"


@pytest.mark.parametrize("heads", [((0, 1, 2, 3), (1, 3), ()), ((2,), None, (0, 1))])
def test_heads_of_wavlm_are_chosen_on_the_device(heads):
    """Python's lists of indices are copied there each time, and the host waits."""
    torch.manual_seed(0)
    model = SpeechModel(replace(tiny("wavlm").config, heads=heads))
    with fake_cuda() as waits:
        model.to(CUDA)
        waits.found.clear()
        model.extract_features(torch.zeros(2, 4000, device=CUDA))
        assert waits.found == []
    assert not [name for name in model.state_dict() if "head_ids" in name]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_layers_add_up_in_float32_whatever_autocast_multiplies_in(shape, precision):
    model = tiny(shape)
    with fake_cuda() as waits:
        model.to(CUDA)
        with autocast(CUDA, precision):
            states, _ = model.extract_features(torch.zeros(2, 4000, device=CUDA))
        assert {state.dtype for state in states[1:]} == {torch.float32}
        low = AUTOCAST.get(precision, torch.float32)
        assert states[0].dtype == low
        assert waits.types["convolution"] == {low}
        products = waits.types.get("addmm", set()) | waits.types.get("mm", set())
        assert products == {low}


@pytest.mark.parametrize("shape", SHAPES)
def test_folded_models_move_to_the_device(shape):
    folded = fold(prune(gated(tiny(shape))))
    with fake_cuda():
        folded.to(CUDA)
        states, _ = folded.extract_features(torch.zeros(2, 4000, device=CUDA))
        assert {state.device.type for state in states} == {"cuda"}
