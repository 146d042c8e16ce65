"""Gradients are sent while others are still computed, in one order, and those that are missing as zeros."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from s3prl_dphubert.training import distributed
from s3prl_dphubert.training.distributed import Processes
from s3prl_dphubert.training.gradient_exchange import GradientExchange
from tests.helpers.forked_processes import finish, run


class TwinProcesses(Processes):
    """Two processes with equal gradients, so that a sum is twice the own part."""

    def __init__(self):
        super().__init__(0, 2)
        self.sent = []

    def start_sum(self, tensor):
        self.sent.append(len(tensor))
        return tensor

    def finish_sum(self, work):
        work *= 2


@pytest.fixture
def layers(monkeypatch):
    """Three layers, each a bucket of its own: 8, 16 and 24 elements."""
    monkeypatch.setattr(distributed, "BUCKET", 20)
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(size, out, bias=False) for size, out in ((2, 4), (4, 4), (4, 6)))


def loss_of(layers, x, skipped=()):
    for index, layer in enumerate(layers):
        if index not in skipped:
            x = layer(x).tanh()
    return x.square().sum()


def last_first(layers):
    return list(reversed(list(layers.parameters())))


def test_buckets_are_sent_before_the_backward_pass_is_over(layers):
    processes = TwinProcesses()
    exchange = GradientExchange(last_first(layers), processes)
    x, sent = torch.randn(3, 2), []
    expected = torch.autograd.grad(2 * 2 * loss_of(layers, x), list(layers.parameters()))
    exchange.reset()
    loss_of(layers, x).backward()  # the first of two micro-batches
    assert processes.sent == []
    exchange.start(torch.zeros(()))
    for layer in layers:
        layer.weight.register_hook(lambda gradient: sent.append(len(processes.sent)))
    loss_of(layers, x).backward()
    assert processes.sent == [24, 16, 8]
    assert sent == [0, 1, 2]  # when a layer's gradient came, those of all behind it were on their way
    exchange.finish()
    for parameter, gradient in zip(layers.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_missing_gradients_are_zeros_and_hold_up_those_behind_them(layers):
    processes = TwinProcesses()
    exchange = GradientExchange(last_first(layers), processes)
    for _ in range(2):  # gradients of the update before do not remain
        exchange.reset()
        exchange.start(torch.zeros(()))
        loss_of(layers, torch.randn(3, 2), skipped=[1]).backward()
        assert processes.sent[-1] == 24  # only the last layer, though the first is complete too
        exchange.finish()
    assert processes.sent == [24, 16, 8] * 2
    assert not layers[1].weight.grad.any()
    assert layers[0].weight.grad.any()


def test_a_bad_loss_reaches_the_sum(layers):
    exchange = GradientExchange(last_first(layers), TwinProcesses())
    exchange.reset()
    exchange.start(torch.tensor(float("nan")))
    loss_of(layers, torch.randn(3, 2)).backward()
    exchange.finish()
    total = nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
    assert bool(total.isnan())


def test_closed_exchanges_take_part_in_nothing(layers):
    processes = TwinProcesses()
    exchange = GradientExchange(last_first(layers), processes)
    exchange.reset()
    exchange.start(torch.zeros(()))
    exchange.close()
    loss_of(layers, torch.randn(3, 2)).backward()
    assert processes.sent == []


def exchange_in_two(folder):
    """Process 0 has gradients of the first parameter, process 1 of the second."""
    with distributed.join("cpu") as processes:
        distributed.BUCKET = 2
        weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
        exchange = GradientExchange(weights, processes)
        for update in range(3):
            exchange.reset()
            exchange.start(torch.zeros(()))
            (weights[processes.rank] * (update + 1)).sum().backward()
            exchange.finish()
        torch.save([weight.grad for weight in weights], folder / f"{processes.rank}.pt")


@pytest.mark.slow
@pytest.mark.torchrun
def test_processes_with_gradients_of_different_parameters_agree(tmp_path):
    finish(run(tmp_path, exchange_in_two, tmp_path, world=2))
    for rank in (0, 1):
        gradients = torch.load(tmp_path / f"{rank}.pt")
        assert [gradient.tolist() for gradient in gradients] == [[3.0, 3.0], [3.0, 3.0]]
