"""Exported graphs compute what the model computes, in any batch and family, pruned or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import TensorProto

from s3prl_dphubert.export import blocked_attention_graph
from s3prl_dphubert.export.backends import FORMATS, FRAMES, HIDDEN, feeds_of, open_session
from s3prl_dphubert.export.candidate import ExportSource
from s3prl_dphubert.export.extractor_graph import build
from s3prl_dphubert.export.quantization import QuantizationPlan, lower, place, products, with_half_weights
from s3prl_dphubert.export.window_statistics import waveform_level, window_statistics
from s3prl_dphubert.model import SpeechModel
from s3prl_dphubert.pruning.structured import prune
from tests.helpers.models import FAMILIES, SHAPES, assert_same, gated, tiny

BATCHES = ((400,), (719, 400), (16_000,), (5000, 401, 3210, 399), (4000, 4000), (8000, 7999, 1000))
ALL = (0, 1, 2, 3)


def pruned(shape):
    """A model whose layers lost channels, heads and units, one of them all of its heads, one its units."""
    model = gated(tiny(shape), kinds=("conv", "heads", "ffn"))
    with torch.no_grad():
        for kind, layer, gate in model.gates.items():
            if (kind, layer) in (("heads", 1), ("ffn", 2)):
                gate.log_alpha.fill_(-9)
    return prune(model)


def without_sublayers(shape):
    """A model that has no attention in its first layer and no feed-forward in its second."""
    config = tiny(shape).config
    heads, ffn = (None, (1, 3), ()), (24, None, 0)
    return SpeechModel(replace(config, heads=heads, ffn=ffn)).eval()


def waveforms(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch = 0.3 * torch.randn(len(lengths), max(lengths), generator=generator) + 0.05
    for row, length in zip(batch, lengths, strict=True):
        row[length:] = 0
    return batch, torch.tensor(lengths)


def hidden_states(session, config, batch, lengths, layers=ALL):
    outputs = session.run(feeds_of(config, batch.numpy(), lengths.numpy()))
    return [torch.from_numpy(outputs[HIDDEN.format(layer)]) for layer in layers], outputs[FRAMES]


def opened(graph, form):
    return open_session(graph.model().SerializeToString(), form, 1)


def graph_of(model, form, layers=ALL):
    """The graph that files of a format hold."""
    return ExportSource("test", model, layers, 1).graph(form)


@torch.no_grad()
def assert_equal(model, form, layers=ALL):
    session = opened(graph_of(model, form, layers), form)
    generator = np.random.default_rng(3)
    some = tuple(tuple(generator.integers(400, 9000, size=3).tolist()) for _ in range(2))
    for lengths in (*BATCHES, *some):
        batch, ends = waveforms(lengths)
        exact, frames = model.extract_features(batch, ends)
        states, counted = hidden_states(session, model.config, batch, ends, layers)
        assert counted.tolist() == frames.tolist()
        assert_same(states, [exact[layer] for layer in layers])
        if len(set(lengths)) == 1:
            assert_same(states, [model.extract_features(batch)[0][layer] for layer in layers])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_models(shape, form):
    assert_equal(tiny(shape), form)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_pruned_models(shape, form):
    model = pruned(shape)
    assert not model.config.is_dense
    assert model.config.heads[1] == () and model.config.ffn[2] == 0
    assert_equal(model, form)


@pytest.mark.parametrize("shape", SHAPES)
def test_models_without_sublayers(shape):
    assert_equal(without_sublayers(shape), "onnx")


@pytest.mark.parametrize("eps", [1e-5, 1e-7])
@torch.no_grad()
def test_quiet_speech_is_normalised_with_the_epsilon_of_the_model(eps):
    model = tiny("large")
    model.config = replace(model.config, normalize_eps=eps)
    batch, ends = waveforms((9000, 5000))
    exact, _ = model.extract_features(0.003 * batch, ends)
    states, _ = hidden_states(opened(build(model, ALL), "onnx"), model.config, 0.003 * batch, ends)
    assert_same(states, exact, 1e-3)


@torch.no_grad()
def test_relative_positions_far_apart():
    """Beyond ``max_distance`` all positions share a bucket: 250 frames are more than thrice as far."""
    model = tiny("wavlm")
    batch, ends = waveforms((80_000,))
    graph = build(model, ALL, blocks=True)
    states, _ = hidden_states(opened(graph, "onnx"), model.config, batch, ends)
    assert states[0].shape[1] > 3 * model.config.max_distance
    assert_same(states, model.extract_features(batch)[0])


@pytest.mark.parametrize(("shape", "form"), [("hubert", "onnx"), ("wavlm", "onnx"), ("wavlm", "openvino")])
@torch.no_grad()
def test_attention_in_blocks(shape, form, monkeypatch):
    """Blocks of 3 of 24 frames; the last is not full. Padding is masked in each."""
    monkeypatch.setattr(blocked_attention_graph, "SCORES", 75)
    model = tiny(shape)
    assert_equal(model, form)
    batch, ends = waveforms((8000, 5000, 1200))
    graph = graph_of(model, form)
    states, _ = hidden_states(opened(graph, form), model.config, batch, ends)
    assert sum(node.op_type == "Loop" for node in graph.nodes) == model.config.num_layers
    exact, _ = model.extract_features(batch, ends)
    assert_same(states, exact)
    if form == "openvino":
        lowered = lower(graph, QuantizationPlan(bf16=True))
        states, _ = hidden_states(opened(lowered, form), model.config, batch, ends)
        wrong = [float((a - b).abs().sum() / b.abs().sum()) for a, b in zip(states, exact, strict=True)]
        assert 0 < max(wrong) < 0.01


def test_lowered_blocks_multiply_in_sixteen_bits():
    """Their inputs are cast inside of them, their results stay float32."""
    graph = lower(graph_of(tiny("wavlm"), "openvino"), QuantizationPlan(bf16=True))
    (body, *others) = (node.attribute[0].g for node in graph.nodes if node.op_type == "Loop")
    assert len(others) == 2
    casts = [node.attribute[0].i for node in body.node if node.op_type == "Cast"]
    assert casts.count(TensorProto.BFLOAT16) >= 1 and casts.count(TensorProto.FLOAT) == 1
    assert body.output[1].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_audio_in_pieces(shape, form):
    """Features of the first piece go into the states of the second, with the norms of the whole."""
    model = tiny(shape)
    config = model.config
    session = opened(graph_of(model, form), form)
    batch, _ = waveforms((9000,))
    exact, _ = model.extract_features(batch)
    x, frames = batch.numpy(), config.frames(9000)
    level = waveform_level(x[0])
    heard = (
        (x[0] - level[0]) / np.sqrt(level[1] + config.normalize_eps) if config.normalize_waveform else x[0]
    )
    whole = window_statistics(config, heard, 9000)[None], level[None]
    first = x[:, : 9 * config.stride + config.min_samples]
    features = session.features(feeds_of(config, first, None, *whole))
    outputs = session.run(feeds_of(config, x[:, 10 * config.stride :], None, *whole, features))
    assert features.shape[1] == 10 and outputs[FRAMES].tolist() == [frames]
    assert_same([torch.from_numpy(outputs[HIDDEN.format(layer)]) for layer in ALL], exact)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", ["hubert", "large"])
def test_inputs_that_do_not_fit_have_no_valid_frames(shape, form):
    """OpenVINO would return the states of the request before."""
    model = tiny(shape)
    session = opened(build(model, (0,)), form)
    for samples, length, frames in (
        (399, 399, 0),
        (1, 1, 0),
        (0, 0, 0),
        (4000, 0, 0),
        (4000, -1, 0),
        (4000, 4001, 12),
    ):
        session.run(feeds_of(model.config, np.ones((1, 4000), np.float32)))
        outputs = session.run(feeds_of(model.config, np.ones((1, samples), np.float32), np.array([length])))
        assert outputs[FRAMES].tolist() == [frames]
        states = outputs[HIDDEN.format(0)]
        assert states.shape[1] == (12 if samples == 4000 else 1)
        assert states.any() == (frames > 0) and np.isfinite(states).all()


@pytest.mark.parametrize("layers", [(0,), (2,), (1, 3)])
def test_selected_hidden_states(layers):
    model = tiny("hubert")
    assert_equal(model, "onnx", layers)
    graph = build(model, layers)
    depths = {int(place(node).split(".")[1]) for node in graph.nodes if node.name.startswith("layers.")}
    assert depths == set(range(max(layers)))  # what lies behind the last is left out


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_published_shapes(family):
    """At full width, two layers of them: the same numbers, and every product may take low precision."""
    config = FAMILIES[family]
    config = replace(config, heads=config.heads[:2], ffn=config.ffn[:2])
    model = SpeechModel(config).eval()
    graph = build(model, (0, 2))
    places = {place(node) for node in products(graph)}
    layers = {f"layers.{layer}.{part}" for layer in (0, 1) for part in ("attention", "feed_forward")}
    assert layers | {"projection", "positions"} <= places
    first = 0 if config.extractor_mode == "layer_norm" else 1  # weights of its own for each utterance
    assert {f"conv.{index}" for index in range(first, 7)} <= places
    batch, ends = waveforms((1700, 900))
    states, _ = hidden_states(opened(graph, "onnx"), model.config, batch, ends, (0, 2))
    exact, _ = model.extract_features(batch, ends)
    assert_same(states, [exact[0], exact[2]])


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_sixteen_bits(shape):
    """Products in bfloat16, norms and sums in float32: some 0.5 % off, and less where only weights are."""
    model, (batch, ends) = tiny(shape), waveforms((16_000, 9000))
    exact, _ = model.extract_features(batch, ends)
    graph = build(model, ALL)
    for form, lowered, limit in (
        ("openvino", lower(graph, QuantizationPlan(bf16=True)), 0.01),
        ("onnx", with_half_weights(graph), 0.005),
    ):
        states, _ = hidden_states(opened(lowered, form), model.config, batch, ends)
        wrong = [float((a - b).abs().sum() / b.abs().sum()) for a, b in zip(states, exact, strict=True)]
        assert 0 < max(wrong) < limit
        stored = len(lowered.model().SerializeToString())
        assert stored < 0.8 * len(graph.model().SerializeToString())


def test_lowering_leaves_the_graph_alone():
    graph = build(tiny("hubert"), ALL)
    before = graph.model().SerializeToString()
    lower(graph, QuantizationPlan(bf16=True))
    with_half_weights(graph)
    assert graph.model().SerializeToString() == before
