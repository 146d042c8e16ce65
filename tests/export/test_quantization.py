"""Products in 8 bits: ranges from speech, places by sensitivity, results that are finite and near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.export import calibration, calibration_data, quantization, sensitivity
from s3prl_dphubert.export.backends import FORMATS, feeds_of
from s3prl_dphubert.export.extractor_graph import build
from s3prl_dphubert.export.quantization import QuantizationPlan, Range, lower, place, products
from s3prl_dphubert.export.speech_batches import calibration_feeds, trial_feeds
from s3prl_dphubert.export.window_statistics import window_statistics
from s3prl_dphubert.utils import resources
from tests.export.test_graph import hidden_states, opened, waveforms

CONFIG = load_model(resources.find("assets/hubert_mini")).config


@pytest.fixture(scope="module")
def teacher():
    """hubert_mini, its graph up to layer 2, speech and held-out speech."""
    model = load_model(resources.find("assets/hubert_mini"))
    heard, checked = calibration_data.calibration(None, 400), calibration_data.check(None, 400)
    return model, build(model, (0, 2)), heard[::8], checked[::4]


def plan(graph, heard, form):
    values = {node.input[0] for node in products(graph)}
    values |= {node.output[0] for node in products(graph) if node.op_type == "Conv"}
    ranges = calibration.measure(graph, sorted(values), calibration_feeds(CONFIG, heard), form, 1)
    return QuantizationPlan(bf16=form == "openvino", ranges=ranges, outputs=form == "onnx")


def mean_error(model, graph, heard, form):
    with torch.no_grad():
        exact = [[state.numpy() for state in model.extract_features(wav)[0]] for wav in heard]
    outputs = sensitivity.run(graph, (0, 2), [feeds_of(CONFIG, wav.numpy()) for wav in heard], form, 1)
    return sensitivity.relative_errors(outputs, [[states[0], states[2]] for states in exact]).mean()


def test_embedded_voices_calibrate_or_check_but_not_both():
    heard, checked = ({path.parts[-2] for path in calibration_data._paths(None, part)} for part in (0, 1))
    assert heard and checked and not heard & checked
    wavs = calibration_data.calibration(None, 400)
    assert len(wavs) == calibration_data.CALIBRATION
    assert all(wav.shape[0] == 1 and 16_000 <= wav.shape[1] <= 160_000 for wav in wavs)


def test_ranges():
    numbers = np.concatenate([np.linspace(-0.2, 1, 9999), [50.0]]).astype(np.float32)
    narrow, wide = calibration.best_range(numbers, 1), calibration.best_range(numbers, 2)
    assert narrow.high < wide.high <= 50  # one loud moment of ten thousand is cut off, or kept
    assert narrow.low == wide.low == pytest.approx(-0.2)
    same = calibration.best_range(np.zeros(10, np.float32), 2)
    assert (same.low, same.high, int(same.zero)) == (0, 0, 0) and same.scale > 0
    above = calibration.best_range(np.linspace(3, 5, 100).astype(np.float32), 2)
    assert above.low == 0  # so that zeros, as in padding, stay exact


def test_weights_have_a_scale_for_each_channel():
    model = build(load_model(resources.find("assets/hubert_mini")), (0, 1))
    bounds = {node.input[0]: Range(-1, 1) for node in products(model)}
    lowered = lower(
        model, QuantizationPlan(int8=frozenset({"conv.3", "layers.0.feed_forward"}), ranges=bounds)
    )
    codes = [name for name in lowered.weights if name.endswith("/codes")]
    assert len(codes) == 3
    for name in codes:
        stem = name.removesuffix("/codes")
        scale, exact = lowered.weights[f"{stem}/scale"], model.weights[stem]
        axis = 0 if exact.ndim == 3 else 1
        assert scale.shape == (exact.shape[axis],)
        shape = [-1 if index == axis else 1 for index in range(exact.ndim)]
        error = np.abs(lowered.weights[name] * scale.reshape(shape) - exact)
        assert (error <= 0.501 * scale.reshape(shape)).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_hubert_mini_stays_within_the_limit(teacher, form):
    """Chosen on some voices, checked on others: the Transformer's products fit in, the first convs do not."""
    model, graph, heard, checked = teacher
    base = plan(graph, heard, form)
    limit = 0.03
    places, alone = sensitivity.choose(graph, base, (0, 2), trial_feeds(CONFIG, heard), limit, form, 1)
    chosen = replace(base, int8=frozenset(places))
    assert {"layers.1.attention", "layers.1.feed_forward"} <= chosen.int8
    assert set(alone) == {place(node) for node in products(graph)}
    # ONNX Runtime's are rounded twice; in either, quiet moments vanish in the steps of loud ones.
    assert min(alone[f"conv.{index}"] for index in (1, 2, 3)) > limit
    assert not {"conv.1", "conv.2", "conv.3"} & chosen.int8
    wrong = mean_error(model, lower(graph, chosen), checked, form)
    assert mean_error(model, lower(graph, base), checked, form) < wrong < limit


def test_places_are_given_up_while_together_they_err_too_much():
    """Errors add up as squares; what they are together is measured, and the last given up."""
    added, work = {"a": 1.0, "b": 4.0, "c": 9.0, "d": 400.0}, {"a": 1.0, "b": 10.0, "c": 1.0, "d": 100.0}
    tried = []

    def error(places):
        tried.append(places)
        return 5.0 if "c" in places else 1.0

    chosen = sensitivity._largest(added, work, 0.0, 4.0, error)
    assert tried == [{"a", "b", "c"}, {"a", "b"}]  # "d" is beyond the limit alone
    assert chosen == ["b", "a"]
    assert sensitivity._largest(added, work, 0.0, 0.5, error) == []


@pytest.mark.parametrize("form", FORMATS)
@torch.no_grad()
def test_everything_in_eight_bits_is_finite(teacher, form):
    """Silence, a constant, clipping, noise far louder than any speech, one frame, padding."""
    _, graph, heard, _ = teacher
    base = plan(graph, heard, form)
    every = replace(base, int8=frozenset(place(node) for node in products(graph)))
    session = opened(lower(graph, every), form)
    batch, ends = waveforms((16_000, 400, 1, 5000))
    odd = {
        "silence": torch.zeros(2, 4000),
        "constant": torch.ones(2, 4000),
        "clipped": torch.where(torch.randn(2, 4000) > 0, 1.0, -1.0),
        "loud": 1e4 * torch.randn(2, 4000),
        "faint": 1e-8 * torch.randn(2, 4000),
        "one frame": torch.randn(1, 400),
    }
    for name, wavs in odd.items():
        states, _ = hidden_states(session, CONFIG, wavs, torch.full((len(wavs),), wavs.shape[1]), (0, 2))
        assert all(state.isfinite().all() for state in states), name
    states, frames = hidden_states(session, CONFIG, batch, ends, (0, 2))
    assert frames.tolist() == [49, 1, 0, 15]
    assert all(state.isfinite().all() for state in states)
    assert (states[0][1, 1:] == 0).all()  # padding stays masked


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_convolutions_in_eight_bits_bear_padding(teacher, form, monkeypatch):
    """GroupNorm makes features grow with the padding, up to five times here; the crest follows."""
    _, graph, heard, checked = teacher
    chosen = replace(plan(graph, heard, form), int8=frozenset({"conv.4", "conv.5", "conv.6"}))
    lowered = lower(graph, chosen)
    monkeypatch.setattr(quantization, "has_crest", lambda node: False)
    fixed = lower(graph, chosen)
    errors = {}
    for times in (1, 4, 25):
        feeds = [
            feeds_of(
                CONFIG,
                wav.numpy(),
                None,
                window_statistics(CONFIG, wav[0].numpy(), times * wav.shape[1])[None],
            )
            for wav in checked
        ]
        exact, *rounded = (sensitivity.run(g, (0, 2), feeds, form, 1) for g in (graph, lowered, fixed))
        errors[times] = [sensitivity.relative_errors(each, exact).mean() for each in rounded]
    assert all(following < 0.6 * plain for following, plain in errors.values())
    assert errors[4][0] < 1.5 * errors[1][0] < 0.2 and errors[25][0] < 0.25


def test_eight_bits_are_really_used(teacher):
    """The lowered graph holds the weights of its places as whole numbers, and no others."""
    _, graph, heard, _ = teacher
    base = plan(graph, heard[:2], "onnx")
    few = lower(graph, replace(base, int8=frozenset({"layers.1.attention"})))
    stored = [name for name, array in few.weights.items() if array.dtype == np.int8 and array.ndim > 1]
    assert len(stored) == 4 and all(name.startswith("layers.1.attention/") for name in stored)
