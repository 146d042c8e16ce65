"""Hidden states, counts and gates against numbers computed by the published implementation."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.checkpoints.dphubert_pth import load_student
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.model.cost import masked_widths, parameters
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.structured import cut, prune
from tests.helpers.golden import GATED, GOLDEN

PLAIN = ("hubert_post_norm", "hubert_pre_norm", "wavlm", "hubert_post_norm_pruned", "wavlm_pruned")


def assert_hidden(hidden, expected, prefix, lengths=None):
    assert len(hidden) == sum(key.startswith(prefix) and key[len(prefix) :].isdigit() for key in expected)
    for index, state in enumerate(hidden):
        reference = expected[f"{prefix}{index}"]
        valid = lengths or [state.shape[1]] * len(state)
        for row, wanted, length in zip(state, reference, valid, strict=True):
            torch.testing.assert_close(row[:length], wanted[:length], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def check(model, expected, prefix=""):
    waveforms, lengths = expected["waveforms"], expected["lengths"]
    hidden, none = model.extract_features(waveforms)
    assert none is None
    assert_hidden(hidden, expected, f"{prefix}hidden_")
    hidden, frames = model.extract_features(waveforms, lengths)
    assert frames.tolist() == expected["out_lengths"].tolist()
    assert_hidden(hidden, expected, f"{prefix}hidden_len_", frames.tolist())


@pytest.mark.parametrize("name", PLAIN)
def test_hidden_states(name, golden):
    expected, _ = golden(name)
    check(load_model(GOLDEN / f"{name}.pth"), expected)


@pytest.mark.parametrize("name", PLAIN)
def test_parameter_count(name, golden):
    _, facts = golden(name)
    model = load_model(GOLDEN / f"{name}.pth")
    assert sum(p.numel() for p in model.parameters()) == facts["num_parameters"]
    assert parameters(model.config) == facts["num_parameters"]


@pytest.mark.parametrize("name", GATED)
def test_published_masked_outputs(name, golden):
    expected, _ = golden(name)
    check(load_student(GOLDEN / f"{name}.pth", exact=False), expected)


@pytest.mark.parametrize("name", GATED)
def test_released_pruned_checkpoint(name, golden):
    expected, facts = golden(name)
    model = load_model(GOLDEN / f"{name}.pruned.pth")
    check(model, expected, "pruned_")
    assert parameters(model.config) == facts["num_parameters_after_pruning"]


@pytest.mark.parametrize("name", GATED)
def test_published_pruning(name, golden):
    expected, facts = golden(name)
    pruned = prune(load_student(GOLDEN / f"{name}.pth", exact=False))
    check(pruned, expected, "pruned_")
    published = facts["pruned_config"]
    shape = (pruned.config.conv_channels, pruned.config.conv_kernels, pruned.config.conv_strides)
    assert [list(row) for row in zip(*shape, strict=True)] == published["extractor_conv_layer_config"]
    assert [heads is not None for heads in pruned.config.heads] == published["encoder_use_attention"]
    assert [width is not None for width in pruned.config.ffn] == published["encoder_use_feed_forward"]
    for width, wanted in zip(pruned.config.ffn, published["encoder_ff_interm_features"], strict=True):
        assert width is None or width == wanted
    if "encoder_remaining_heads" in published:
        assert [list(heads) for heads in pruned.config.heads] == published["encoder_remaining_heads"]
    else:
        assert [len(heads) for heads in pruned.config.heads] == published["encoder_num_heads"]
    assert sum(p.numel() for p in pruned.parameters()) == facts["num_parameters_after_pruning"]


@pytest.mark.parametrize("name", GATED)
@torch.no_grad()
def test_exact_pruning(name, golden):
    """Masked and pruned outputs agree, conv channels included, and equal the published pruned model."""
    expected, _ = golden(name)
    student = load_student(GOLDEN / f"{name}.pth")
    check(student, expected, "pruned_")
    masked, _ = student.extract_features(expected["waveforms"], expected["lengths"])
    pruned, frames = prune(student).extract_features(expected["waveforms"], expected["lengths"])
    for a, b in zip(masked, pruned, strict=True):
        for row, other, length in zip(a, b, frames.tolist(), strict=True):
            torch.testing.assert_close(row[:length], other[:length], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", GATED)
def test_expected_parameters(name, golden):
    _, facts = golden(name)
    student = load_student(GOLDEN / f"{name}.pth")
    costs = student.expected_costs(Budget({"published": 0.75}))
    assert list(costs) == ["published"]
    assert costs["published"].item() == pytest.approx(facts["expected_num_params"], rel=1e-6)


@pytest.mark.parametrize("name", GATED)
def test_closed_gates_cost_what_the_model_costs(name, golden):
    _, facts = golden(name)
    student = load_student(GOLDEN / f"{name}.pth")
    masks = student.gates.masks()
    cost = parameters(student.model.config, masked_widths(student.model.config, masks))
    assert float(cost) == facts["num_parameters_after_pruning"]
    assert sum(p.numel() for p in cut(student.model, masks).parameters()) == int(cost)
