"""Compiled models give what plain ones give, and a compiler that fails stops nothing."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F

from s3prl_dphubert.model.compilation import CompiledFunction
from s3prl_dphubert.model.transformer import flex_attend, gated_positions, position_factors
from tests.helpers.models import gated, tiny


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["wavlm", "large"])
def test_a_student_under_gates_is_one_graph_for_all_lengths(shape):
    """Traced as for a GPU, without a backend that needs a C compiler."""
    student = gated(tiny(shape)).train()
    for module in student.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
        elif isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = CompiledFunction(student.model.extract_features, backend=backend, fullgraph=True)
    for samples in (4000, 5000, 6000):
        waveforms = torch.randn(2, samples)
        masks = student.gates.sample(torch.Generator().manual_seed(samples))
        states = compiled(waveforms, masks=masks)[0]
        expected = student.model.extract_features(waveforms, masks=masks)[0]
        assert compiled.compiled is not None
        assert len(states) == len(expected) == 4
        for state, other in zip(states, expected, strict=True):
            torch.testing.assert_close(state, other)
    assert len(graphs) <= 2  # for the first length, and for all others


def test_a_compiler_that_fails_is_one_warning(caplog):
    def backend(graph, _):
        raise RuntimeError("no C compiler")

    compiled = CompiledFunction(lambda x: x * 2 + 1, backend=backend)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 3.0))
    (message,) = caplog.messages
    assert message.startswith("torch.compile failed") and "no C compiler" in message
    assert "\n" not in message


def test_an_error_of_the_function_itself_is_not_taken_for_one_of_the_compiler(caplog):
    compiled = CompiledFunction(lambda x: x @ torch.ones(4), backend="eager")
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="size"):
        compiled(torch.ones(3))
    assert caplog.messages == []
    assert compiled.compiled is not None


@pytest.mark.parametrize("heads", [(0, 1, 2, 3), (0, 2)])
@pytest.mark.parametrize("padded", [False, True])
def test_flexible_attention_adds_wavlms_biases(heads, padded):
    """As scaled dot-product attention does with the biases written down."""
    torch.manual_seed(0)
    attention = tiny("wavlm").encoder.transformer.layers[0].attention
    x, table = torch.randn(2, 50, 32), torch.randn(4, 50, 50)
    q, k, v = torch.randn(3, 2, len(heads), 50, 8).unbind()
    padding = torch.zeros(2, 1, 1, 50)
    padding[1, ..., 30:] = -1e4
    gate = attention.gru_rel_pos_linear, attention.gru_rel_pos_const
    with torch.no_grad():
        bias = gated_positions(x, table, *gate, heads)
        expected = F.scaled_dot_product_attention(q, k, v, bias + padding if padded else bias)
        factors, rows = position_factors(x, table, *gate, heads)
        out = flex_attend(q, k, v, factors, rows, padding if padded else None)
    assert factors.shape == (2, len(heads), 50, 1)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
