"""LSTM of s3prl's recogniser: padded on the CPU, with the outputs and gradients of packed sequences."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_packed_sequence

pytestmark = pytest.mark.s3prl

LENGTHS = torch.tensor([7, 30, 1, 22, 30])


def layer(module="LSTM", bidirection=True, **options):
    from s3prl.downstream.asr.model import RNNLayer

    options = {"dropout": 0.0, "layer_norm": False, "sample_rate": 1, "proj": False, **options}
    torch.manual_seed(0)
    return RNNLayer(12, module, bidirection, 8, **options)


def packed(layer):
    """Return a copy that computes as torch does."""
    other = copy.deepcopy(layer)
    other.layer.__class__ = nn.LSTM
    return other


@pytest.mark.parametrize("bidirection", [True, False])
def test_outputs_and_gradients_are_those_of_packed_sequences(bidirection):
    padded = layer(bidirection=bidirection)
    assert type(padded.layer) is not nn.LSTM
    results = []
    for each in (padded, packed(padded)):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(5, 30, 12, generator=generator, requires_grad=True)
        output, lengths = each(x, LENGTHS)
        (output * torch.randn(output.shape, generator=generator)).sum().backward()
        results.append([output, lengths, x.grad, *(p.grad for p in each.parameters())])
    assert len(results[0]) == 3 + 4 * (1 + bidirection)
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    assert results[0][1].tolist() == LENGTHS.tolist()


def test_weights_have_the_names_that_checkpoints_know():
    padded = layer()
    assert list(padded.state_dict()) == list(packed(padded).state_dict())


def test_sequences_that_are_not_packed_and_other_states_are_left_to_torch():
    padded = layer()
    lstm, plain = padded.layer, packed(padded).layer
    x = torch.randn(2, 5, 12)
    output, (h, _) = lstm(x)
    expected, (last, _) = plain(x)
    assert torch.equal(output, expected) and torch.equal(h, last)
    sequence = nn.utils.rnn.pack_padded_sequence(x, [5, 3], batch_first=True)
    start = torch.ones(2, 2, 8), torch.ones(2, 2, 8)
    output, (h, _) = lstm(sequence, start)
    expected, (last, _) = plain(sequence, start)
    assert torch.equal(pad_packed_sequence(output)[0], pad_packed_sequence(expected)[0])
    assert torch.equal(h, last)


def test_a_gru_is_left_alone():
    assert type(layer("GRU").layer) is nn.GRU
