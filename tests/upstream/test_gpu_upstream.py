"""Upstreams on a GPU without numbers: where hidden states are, and where the host would wait."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.pruning.structured import prune
from s3prl_dphubert.upstream import cached_expert
from s3prl_dphubert.upstream.expert import UpstreamExpert
from s3prl_dphubert.upstream.options import Options
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.models import gated, tiny

pytestmark = pytest.mark.slow
CUDA = torch.device("cuda")
FINITE = "_local_scalar_dense"  # that the samples of a batch are finite, which is checked once


@pytest.mark.parametrize("padding", ["batch", "exact"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("trains", [False, True])
def test_upstreams_wait_for_nothing_but_the_check_of_their_input(padding, precision, trains):
    expert = UpstreamExpert(prune(gated(tiny("wavlm"))), Options(precision=precision, padding=padding))
    expert.train(trains)
    with fake_cuda() as waits, torch.set_grad_enabled(trains):
        expert.to(CUDA)
        wavs = [torch.zeros(samples, device=CUDA) for samples in (4000, 2500, 4000)]
        waits.found.clear()
        waits.answer = 1.0
        output = expert(wavs)
        assert waits.found == [FINITE]
        states = output["hidden_states"]
        assert len(states) == 4
        assert {(state.device.type, state.dtype) for state in states} == {("cuda", torch.float32)}
        assert {state.requires_grad for state in states} == {trains}
        assert tuple(states[0].shape) == (3, 12, 32)


def test_the_feature_cache_gives_its_states_to_the_device():
    """States that are read lie on the host; they are copied from pinned memory."""
    rows = [torch.zeros(4, frames, 32, dtype=torch.float16) for frames in (12, 7)]
    with fake_cuda() as waits:
        states = cached_expert._batch(rows, 12, CUDA)
        assert waits.found == []
        assert len(states) == 4
        assert {(state.device.type, state.dtype) for state in states} == {("cuda", torch.float32)}
        assert tuple(states[0].shape) == (2, 12, 32)
