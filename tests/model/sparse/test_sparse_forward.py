"""Training without the closed units: the states and gradients of the plain model under the same masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from s3prl_dphubert.model.fft_conv import blocks, convolve, spectrum
from s3prl_dphubert.model.sparse.active_units import ActiveUnits
from s3prl_dphubert.model.sparse.dropout import attend, draw, dropout, keep_mask, scale
from s3prl_dphubert.model.sparse.gelu_ops import gelu_conv
from s3prl_dphubert.model.sparse.sparse_forward import sparse_features
from tests.helpers.models import SHAPES, gated, tiny

KINDS = ("conv", "heads", "ffn", "attention", "feed_forward")


def without_dropout(student):
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    return student.double().train()


def run(student, function, masks):
    student.zero_grad(set_to_none=True)
    dtype = next(student.parameters()).dtype
    waveforms = torch.randn(2, 4003, generator=torch.Generator().manual_seed(1)).to(dtype)
    states = function(student.model, waveforms, masks)
    weights = torch.Generator().manual_seed(2)
    sum(
        (state.to(dtype) * torch.randn(state.shape, generator=weights).to(dtype)).sum() for state in states
    ).backward()
    return states, {
        n: p.grad for n, p in student.named_parameters() if p.requires_grad and p.grad is not None
    }


def plain(model, waveforms, masks):
    return model.extract_features(waveforms, masks=masks)[0]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", [1, 4, 16])
def test_same_states_and_gradients(monkeypatch, shape, exact, step):
    """In float64, all kinds of gates, some sublayers closed; units in steps of 1 and of 4, or all of them."""
    choose = ActiveUnits.of.__func__
    monkeypatch.setattr(
        ActiveUnits, "of", classmethod(lambda cls, mask, **k: choose(cls, mask, **{"step": step, **k}))
    )
    closed = 0
    for seed in range(3):
        student = without_dropout(gated(tiny(shape, seed), spread=2.0, kinds=KINDS))
        masks = student.gates.sample(torch.Generator().manual_seed(seed))
        masks = type(masks)(**{kind: getattr(masks, kind) for kind in KINDS}, exact=exact)
        closed += sum(int((m == 0).sum()) for kind in KINDS for m in getattr(masks, kind).values())
        expected, gradients = run(student, plain, masks)
        masks = student.gates.sample(torch.Generator().manual_seed(seed))
        masks = type(masks)(**{kind: getattr(masks, kind) for kind in KINDS}, exact=exact)
        states, own = run(student, sparse_features, masks)
        assert len(states) == len(expected) == 4
        for a, b in zip(states, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
        assert set(own) == set(gradients)
        for name, gradient in gradients.items():
            scale = float(gradient.abs().max()) + 1e-3
            torch.testing.assert_close(
                own[name] / scale, gradient / scale, atol=1e-9, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert closed > 30


def test_bf16_is_as_near_to_float32_as_plain_bf16():
    student = without_dropout(gated(tiny("hubert"))).float()
    masks = student.gates.sample(torch.Generator().manual_seed(0))
    truth = run(student, plain, masks)[0]
    errors = []
    for function in (plain, sparse_features):
        with torch.autocast("cpu", torch.bfloat16):
            states = run(student, function, student.gates.sample(torch.Generator().manual_seed(0)))[0]
        errors.append(
            sum(
                float((a.detach().float() - b.detach()).norm() / b.detach().norm())
                for a, b in zip(states, truth, strict=True)
            )
        )
    assert 0 < errors[1] < 1.5 * errors[0] < 0.2


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (5, 2), (3, 3), (4, 1), (1, 1)])
@pytest.mark.parametrize("frames", [5, 6, 7, 23])
def test_gelu_conv_is_a_convolution_of_gelu(kernel, stride, frames):
    torch.manual_seed(0)
    x = torch.randn(2, frames, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, kernel, dtype=torch.float64, requires_grad=True)
    y = gelu_conv(x, weight, None, stride)
    expected = nn.functional.conv1d(nn.functional.gelu(x).transpose(1, 2), weight, stride=stride)
    torch.testing.assert_close(y, expected.transpose(1, 2))
    of_y = torch.randn_like(y)
    own = torch.autograd.grad(y, [x, weight], of_y, retain_graph=True)
    true = torch.autograd.grad(expected.transpose(1, 2), [x, weight], of_y, retain_graph=True)
    torch.testing.assert_close(own[0], true[0])
    torch.testing.assert_close(own[1], true[1], atol=1e-5, rtol=1e-5)  # summed in float32


@pytest.mark.parametrize(("kernel", "frames"), [(16, 1), (16, 40), (5, 17), (128, 300), (1, 3)])
def test_spectral_convolution_has_the_gradients_of_a_convolution(kernel, frames):
    torch.manual_seed(0)
    x = torch.randn(2, frames, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, 4, kernel, dtype=torch.float64, requires_grad=True)
    cut = blocks(x, kernel)
    y = convolve(cut.flatten(0, 1), spectrum(weight, 3), kernel)
    y = y.unflatten(0, cut.shape[:2]).flatten(1, 2)[:, :frames]
    plain = nn.functional.conv1d(x.transpose(1, 2), weight, padding=kernel // 2, groups=3)
    plain = plain[..., :frames].transpose(1, 2)
    torch.testing.assert_close(y, plain)
    of_y = torch.randn_like(y)
    own = torch.autograd.grad(y, [x, weight], of_y)
    for a, b in zip(own, torch.autograd.grad(plain, [x, weight], of_y), strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_keeps_the_mean_and_follows_the_seed():
    torch.manual_seed(3)
    x = torch.ones(500, 401)
    y = dropout(x, 0.1)
    dropped = float((y == 0).float().mean())
    assert abs(dropped - 0.1) < 0.003
    assert abs(float(y.mean()) - 1) < 0.003
    assert len(y.unique()) == 2
    places = (y == 0).float()
    assert all(abs(float(places[:, k::4].mean()) - 0.1) < 0.006 for k in range(4))  # four a random number
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.1), y)
    assert dropout(x, 0.0) is x
    assert draw(torch.Size([100_000])).min() < -32_000
    assert scale(0.5) == 2


@pytest.mark.parametrize("probability", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
def test_attention_has_the_gradients_of_its_formula(bias, probability):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    added = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True) if bias else None
    inputs = [q, k, v, *([added] if bias else [])]
    torch.manual_seed(1)
    y = attend(q, k, v, added, probability)
    torch.manual_seed(1)
    mask = torch.ones(2, 3, 5, 5, dtype=torch.float64)
    if probability:
        mask = keep_mask(draw(mask.shape), probability, torch.float64)
    scores = q @ k.transpose(-1, -2) / 2 + (0 if added is None else added)
    expected = (scores.softmax(-1) * mask * scale(probability)) @ v
    torch.testing.assert_close(y, expected)
    for own, true in zip(
        torch.autograd.grad(y.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(own, true)
