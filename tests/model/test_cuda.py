"""A GPU gives the hidden states and gradients of the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.models import SHAPES, tiny

pytestmark = pytest.mark.cuda


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
