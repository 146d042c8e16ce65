"""The folded model gives the hidden states of the plain one, and of the published implementation."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model import SpeechModel
from s3prl_dphubert.model.fft_conv import FFTConv
from s3prl_dphubert.model.inference import folded_extractor
from s3prl_dphubert.model.inference.folded import SPILL, fold
from s3prl_dphubert.model.packing import Packing
from s3prl_dphubert.pruning.structured import prune
from s3prl_dphubert.upstream.expert import UpstreamExpert
from tests.helpers.golden import GATED, GOLDEN
from tests.helpers.models import SHAPES, gated, tiny
from tests.model.test_parity import PLAIN, check

LENGTHS = (8000, 400, 7000, 799, 7000, 7950, 1, 5500)  # one frame, none, twins, a frame short of the longest


def batch(lengths=LENGTHS, offset=0.5):
    """Padded waveforms with an offset, whose squares would hide small variances, and their lengths."""
    waveforms = torch.zeros(len(lengths), max(lengths))
    for index, length in enumerate(lengths):
        noise = torch.randn(length, generator=torch.Generator().manual_seed(index))
        waveforms[index, :length] = noise + offset
    return waveforms, torch.tensor(lengths)


def models(shape):
    """A dense model, a pruned one, and one with emptied and absent sublayers and scaled channels."""
    kinds = ("conv", "heads", "ffn", "attention", "feed_forward")
    student = gated(tiny(shape), kinds=kinds)
    student.gates.groups["attention"]["1"].log_alpha.data.fill_(-20)
    student.gates.groups["feed_forward"]["2"].log_alpha.data.fill_(-20)
    empty = gated(tiny(shape), kinds=("heads", "ffn"))
    empty.gates.groups["heads"]["0"].log_alpha.data.fill_(-20)
    empty.gates.groups["ffn"]["1"].log_alpha.data.fill_(-20)
    made = tiny(shape), prune(student), prune(empty)
    assert made[1].config.heads[1] is None
    assert made[1].config.ffn[2] is None
    assert made[2].config.heads[0] == ()
    assert made[2].config.ffn[1] == 0
    assert not bool((made[1].feature_extractor.dummy_weight == 1).all())
    return made


def assert_close(a, b, tolerance=1e-4):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("shape", "columns"), [("hubert", 16), ("wavlm", 16), ("large", 11)])
@torch.no_grad()
def test_channels_of_the_first_layer_are_padded_unless_a_norm_counts_them(shape, columns):
    """An odd number of columns would slow the products down; zeros change no hidden state."""
    torch.manual_seed(0)
    model = SpeechModel(
        replace(tiny(shape).config, conv_channels=(11, *tiny(shape).config.conv_channels[1:]))
    )
    folded, (waveforms, lengths) = fold(model.eval()), batch()
    assert folded.extractor.first_weights(waveforms[0])[0].shape == (10, columns)
    assert folded.extractor.others[0].weight.shape[:2] == (model.config.conv_channels[1], columns)
    plain, frames = model.extract_features(waveforms, lengths)
    for state, wanted in zip(folded.extract_features(waveforms, lengths)[0], plain, strict=True):
        for row, other, count in zip(state, wanted, frames.tolist(), strict=True):
            assert_close(row[:count], other[:count])


@pytest.mark.parametrize(
    ("shape", "stretch"), [*((shape, 200) for shape in SHAPES), ("hubert", 7), ("large", 7)]
)
@torch.no_grad()
def test_equals_the_plain_model(shape, stretch, monkeypatch):
    """With and without padding, whatever pieces the waveforms are cut into."""
    monkeypatch.setattr(folded_extractor, "STRETCH", stretch)
    for model in models(shape):
        folded = fold(model)
        for lengths in (None, batch()[1]):
            plain, frames = model.extract_features(batch()[0], lengths)
            fast, counted = folded.extract_features(batch()[0], lengths)
            assert len(fast) == len(plain) == 4
            if lengths is None:
                assert counted is None
                assert_close(torch.stack(fast), torch.stack(plain))
                continue
            assert torch.equal(counted, frames)
            assert frames[1] == 1
            assert frames[6] == 0
            for state, wanted in zip(fast, plain, strict=True):
                for row, other, count in zip(state, wanted, frames.tolist(), strict=True):
                    known = count and count + SPILL
                    assert_close(row[:known], other[:known])
                    assert not row[known:].any()


@pytest.mark.parametrize("name", PLAIN)
def test_published_hidden_states(name, golden):
    """GroupNorm's statistics count the padding, and the noise that the fixture has in it."""
    check(fold(load_model(GOLDEN / f"{name}.pth")), golden(name)[0])


@pytest.mark.parametrize("name", GATED)
def test_published_hidden_states_of_pruned_models(name, golden):
    check(fold(load_model(GOLDEN / f"{name}.pruned.pth")), golden(name)[0], "pruned_")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_low_precision_is_as_near_as_autocast(shape, precision):
    model, (waveforms, _) = tiny(shape), batch((8000, 8000))
    exact, _ = model.extract_features(waveforms)
    fast, _ = fold(model, precision).extract_features(waveforms)
    with torch.autocast("cpu", {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]):
        rough, _ = model.extract_features(waveforms)
    for state, wanted, other in zip(fast, exact, rough, strict=True):
        assert state.dtype == torch.float32
        error, limit = ((x.float() - wanted).norm() / wanted.norm() for x in (state, other))
        assert 0 < error <= 1.2 * limit + 1e-4
        assert error < 0.01


@torch.no_grad()
def test_low_precision_of_very_loud_and_very_quiet_waveforms():
    """fp16 ends at 65,504: waveforms, and norms folded into weights, must not meet it."""
    model, (waveforms, _) = tiny("hubert"), batch((8000, 8000), 0.0)
    for scale in (1e-4, 3e4):
        exact, _ = model.extract_features(waveforms * scale)
        fast, _ = fold(model, "fp16").extract_features(waveforms * scale)
        assert all((a - b).norm() < 0.01 * b.norm() for a, b in zip(fast, exact, strict=True))


@torch.no_grad()
def test_stops_early():
    model, (waveforms, lengths) = tiny("wavlm"), batch()
    whole, _ = fold(model).extract_features(waveforms, lengths)
    for depth in (0, 2):
        some, _ = fold(model).extract_features(waveforms, lengths, depth)
        assert len(some) == depth + 1
        assert all(torch.equal(a, b) for a, b in zip(some, whole, strict=False))


def test_nothing_but_silence_too_short_for_a_frame():
    states, frames = fold(tiny("hubert")).extract_features(torch.zeros(2, 500), torch.tensor([1, 399]))
    assert frames.tolist() == [0, 0]
    assert [tuple(state.shape) for state in states] == [(2, 1, 32)] * 4
    assert not any(state.any() for state in states)
    constant, _ = fold(tiny("hubert")).extract_features(torch.ones(1, 4000))
    assert all(state.isfinite().all() for state in constant)


def test_leaves_the_model_alone():
    model = tiny("wavlm")
    before = copy.deepcopy(model.state_dict())
    waveforms, lengths = batch()
    states, _ = fold(model, "bf16").extract_features(waveforms, lengths)
    assert not any(state.requires_grad or state.is_inference() for state in states)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ConfigError, match="precision is 'int8', allowed: fp32, bf16, fp16"):
        fold(model, "int8")
    with pytest.raises(ValueError, match="waveforms has shape"):
        fold(model).extract_features(torch.zeros(399))


@pytest.mark.parametrize("kernel", [1, 2, 5, 16, 128])
def test_convolution_by_spectra(kernel):
    torch.manual_seed(kernel)
    weight, bias = torch.randn(12, 4, kernel), torch.randn(12)
    convolve = FFTConv(weight, bias, 3)
    packing = Packing((1, 300, 0, 7, 300))
    x = torch.randn(packing.total, 12)
    y = convolve(x, packing)
    assert y.shape == x.shape
    for _, rows in packing.utterances():
        alone = x[rows].t()[None]
        wanted = torch.nn.functional.conv1d(alone, weight, bias, padding=kernel // 2, groups=3)
        assert_close(y[rows], wanted[0, :, : alone.shape[2]].t(), 1e-4)


def test_packing():
    packing = Packing((3, 0, 5, 3, 4), more=2, limit=5)
    assert packing.frames == [5, 0, 5, 5, 5]
    assert packing.order == [2, 4, 0, 3, 1]
    groups = [(group.start, group.count, group.frames, group.valid) for group in packing.groups]
    assert groups == [(0, 1, 5, 5), (5, 1, 5, 4), (10, 2, 5, 3)]
    tight = Packing(packing.valid)
    x = torch.arange(1.0, 16)[:, None]
    wide = tight.move(x, packing)
    assert wide.flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 10, 11, 12, 0, 0, 13, 14, 15, 0, 0]
    assert torch.equal(packing.move(wide, tight), x)
    rows = tight.unpack(x, 5)[..., 0].tolist()
    assert rows == [[10, 11, 12, 0, 0], [0] * 5, [1, 2, 3, 4, 5], [13, 14, 15, 0, 0], [6, 7, 8, 9, 0]]
    same = Packing((2, 2))
    assert same.unpack(x[:4], 2).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("fused", [False, True])
def test_upstream_sees_new_weights(fused):
    """Fine-tuned, loaded or moved weights reach the next evaluation."""
    expert = UpstreamExpert(tiny("hubert")).eval()
    wavs = [torch.randn(5000, generator=torch.Generator().manual_seed(1))]

    def evaluated():
        with torch.no_grad():
            state = expert(wavs)["last_hidden_state"]
            assert_close(state, expert.model.extract_features(wavs[0][None])[0][-1])
        return state

    first = evaluated()
    folded = expert._fold[1]
    assert torch.equal(evaluated(), first)
    assert expert._fold[1] is folded
    optimizer = torch.optim.AdamW(expert.parameters(), lr=0.01, fused=fused)
    expert.train()
    expert(wavs)["last_hidden_state"].square().sum().backward()
    expert.eval()
    evaluated()
    optimizer.step()
    optimizer.zero_grad()
    second = evaluated()
    assert (first - second).abs().max() > 0.01
    expert.model.load_state_dict(tiny("hubert").state_dict())
    assert_close(evaluated(), first)
    expert.model.load_state_dict(tiny("hubert", seed=1).state_dict(), assign=True)
    assert (evaluated() - first).abs().max() > 0.01
    assert not any("fold" in name for name in expert.state_dict())
