"""Pruning is exact, pure, within budget and repeatable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.dphubert_pth import load_student
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig
from s3prl_dphubert.distillation.task import JointPruning
from s3prl_dphubert.errors import RunError
from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.model.cost import macs, masked_widths, parameters
from s3prl_dphubert.pruning.allocation import fit_masks
from s3prl_dphubert.pruning.budget import COUNTS, Budget
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.pruning.gates import DEFAULT_KINDS, GateConfig, Gates
from s3prl_dphubert.pruning.structured import cut, cut_config, final_masks, prune
from s3prl_dphubert.training.train_config import TrainConfig
from tests.helpers.golden import GATED, GOLDEN
from tests.helpers.models import SHAPES, assert_same, gated, outputs, tiny


@pytest.mark.parametrize("shape", SHAPES)
def test_emptied_sublayers_keep_their_bias(shape, tmp_path):
    student = gated(tiny(shape))
    student.gates.groups["heads"]["0"].log_alpha.data.fill_(-20)
    student.gates.groups["ffn"]["1"].log_alpha.data.fill_(-20)
    pruned = prune(student)
    assert pruned.config.heads[0] == ()
    assert pruned.config.ffn[1] == 0
    masked = outputs(student)
    assert_same(masked, outputs(pruned))
    assert_same(masked, outputs(load_model(save_model(pruned, tmp_path / "model"))))
    assert sum(p.numel() for p in pruned.parameters()) == parameters(pruned.config)
    dense = outputs(student.model)
    assert max(float((a - b).abs().max()) for a, b in zip(masked, dense, strict=True)) > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_closed_layers_vanish(shape):
    student = gated(tiny(shape), kinds=("conv", "heads", "ffn", "attention", "feed_forward"))
    for kind, layer in (("attention", "0"), ("feed_forward", "2")):
        student.gates.groups[kind][layer].log_alpha.data.fill_(-20)
    for kind, layer in (("attention", "1"), ("feed_forward", "1")):
        student.gates.groups[kind][layer].log_alpha.data.fill_(2)
    pruned = prune(student)
    assert pruned.config.heads[0] is None
    assert pruned.config.ffn[2] is None
    assert pruned.config.heads[1] is not None
    assert_same(outputs(student), outputs(pruned))


def test_wavlm_without_any_attention_drops_its_table():
    student = gated(tiny("wavlm"))
    for layer in range(3):
        student.gates.groups["heads"][str(layer)].log_alpha.data.fill_(-20)
    pruned = prune(student)
    assert pruned.encoder.transformer.relative_positions is None
    assert sum(p.numel() for p in pruned.parameters()) == parameters(pruned.config)
    assert_same(outputs(student), outputs(pruned))


@pytest.mark.parametrize("shape", SHAPES)
def test_pruning_is_pure_and_repeatable(shape):
    model = tiny(shape)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = prune(gated(model))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    torch.manual_seed(3)
    again = gated(first)
    second = prune(again)
    assert_same(outputs(again), outputs(second))
    for old, new in zip(first.config.heads, second.config.heads, strict=True):
        assert set(new) <= set(old)
    assert parameters(second.config) < parameters(first.config)


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_budget_is_kept(name, sparsity):
    student = load_student(GOLDEN / f"{name}.pth")
    budget = Budget(sparsity)
    limit = (1 - sparsity) * parameters(student.model.config)
    pruned = prune(student, budget)
    cost = sum(p.numel() for p in pruned.parameters())
    cheapest = 32 + 1  # no unit is dearer than a few per cent of these tiny models
    assert cost <= limit
    assert cost >= 0.99 * limit - cheapest
    assert_same(outputs(student, final_masks(student, budget)), outputs(pruned))


def test_published_count_keeps_the_real_budget():
    student = load_student(GOLDEN / "wavlm_gated.pth")
    limit = 0.5 * parameters(student.model.config)
    pruned = prune(student, Budget({"published": 0.5}))
    assert 0.98 * limit <= sum(p.numel() for p in pruned.parameters()) <= limit


@pytest.mark.parametrize("shape", SHAPES)
def test_macs_budget(shape):
    student = gated(tiny(shape))
    budget = Budget({"macs": 0.5}, seconds=2.0)
    full = macs(student.model.config, 32_000)
    cost = macs(prune(student, budget).config, 32_000)
    assert 0.47 * full <= cost <= 0.5 * full


def test_impossible_budget():
    message = "the smallest model that these gates allow costs .* parameters, allowed: .* macs, allowed"
    with pytest.raises(RunError, match=message):
        prune(gated(tiny("hubert")), Budget({"parameters": 0.99, "macs": 0.5}))
    student = gated(tiny("hubert"), kinds=("ffn",))
    objective = Objective(ObjectiveConfig(groups=((0,), (1, 3))), 32, 32, 3, 3)
    with pytest.raises(RunError, match="ask for less sparsity or gate more kinds"):
        JointPruning(tiny("hubert"), student, objective, TrainConfig(), Budget({"macs": 0.9}))


KINDS = (
    ("conv",),
    ("ffn",),
    ("attention", "feed_forward"),
    ("heads", "attention"),
    ("conv", "attention"),
    ("conv", "heads", "ffn", "attention", "feed_forward"),
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("exact", [True, False])
def test_any_kinds_of_gates_keep_a_budget(kinds, shape, exact):
    """Cuts of real tensors within both counts; nothing that could be reopened alone still fits."""
    model = tiny(shape)
    torch.manual_seed(1)
    student = GatedModel(model, GateConfig(kinds=kinds, exact=exact))
    for _, _, gate in student.gates.items():
        gate.log_alpha.data.normal_(1, 3)
    budget = Budget({"parameters": 0.06, "macs": 0.04}, seconds=1.0)
    limits = budget.limits(budget.costs(model.config))
    masks = final_masks(student.eval(), budget)
    pruned = cut(model, masks)
    assert sum(p.numel() for p in pruned.parameters()) == parameters(pruned.config) <= limits["parameters"]
    assert macs(pruned.config, 16_000) <= limits["macs"]
    over = {
        True: [],
        False: [],
    }  # whether a sublayer -> for each that is closed, whether it would cost too much
    for kind, layer, _ in student.gates.items():
        mask = getattr(masks, kind)[layer]
        more = torch.where(torch.arange(len(mask)) == mask.argmin(), 0.5, mask)
        wider = cut_config(model.config, replace(masks, **{kind: {**getattr(masks, kind), layer: more}}))
        if wider != pruned.config:
            costs = budget.costs(wider)
            over[kind not in DEFAULT_KINDS].append(any(costs[c] > limit for c, limit in limits.items()))
    assert all(over[False])
    assert all(over[True]) or over[False]  # beside units that do not fit there may be room for a sublayer
    assert over[False] or over[True]


def test_expected_costs_are_differentiable():
    student = gated(tiny("wavlm"), kinds=("conv", "heads", "ffn", "attention", "feed_forward"))
    counts = dict.fromkeys(
        (count for count in COUNTS[1:] if count != "latency"), 0.5
    )  # it has tests of its own
    assert list(counts) == ["published", "macs", "superb_macs"]
    for count in counts:
        student.zero_grad()
        student.expected_costs(Budget(counts))[count].backward()
        gradients = [gate.log_alpha.grad for _, _, gate in student.gates.items()]
        assert len(gradients) == 7 + 3 * 4
        assert all(g is not None and bool((g > 0).all()) for g in gradients)


def test_hubert_base_parameters():
    with torch.device("meta"):
        model = SpeechModel(ModelConfig())
    assert sum(p.numel() for p in model.parameters()) == 94_370_944 + 512
    assert parameters(ModelConfig()) == 94_370_944 + 512


@pytest.mark.parametrize("shares", [{"parameters": 0.75}, {"macs": 0.75}, {"parameters": 0.75, "macs": 0.6}])
def test_budget_is_kept_at_hubert_base_size(shares):
    config = ModelConfig()
    torch.manual_seed(0)
    gates = Gates(config, GateConfig())
    for _, _, gate in gates.items():
        gate.log_alpha.data.normal_(-1, 3)
    budget = Budget(shares)
    limits = budget.limits(budget.costs(config))
    assert list(limits) == list(shares)
    fitted = fit_masks(config, gates, gates.masks(), budget, limits)
    costs = budget.costs(config, masked_widths(config, fitted))
    used = [float(costs[count]) / limit for count, limit in limits.items()]
    assert 0.999 <= max(used) <= 1
    for kind, layer, gate in gates.items():
        mask, before = getattr(fitted, kind)[layer], gate.soft()
        assert mask.sum() == 0 or before[mask > 0].min() >= before[mask == 0].max()
