"""Gates: units that stay, and straight-through estimates."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.errors import ConfigError, RunError
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.pruning.gates import KINDS, GateConfig, HardConcrete, sample
from s3prl_dphubert.pruning.structured import final_masks, prune
from tests.helpers.models import assert_same, outputs, tiny

KEEP = {"conv": [0, 6], "heads": {"min": 2}, "ffn": {"layers": [1], "min": 5}}


def closed(config: GateConfig) -> GatedModel:
    """A model whose gates would all rather be closed."""
    student = GatedModel(tiny("hubert"), config).eval()
    for _, _, gate in student.gates.items():
        gate.log_alpha.data.normal_(-20, 1)
    return student


def open_units(masks, kind: str) -> dict[int, int]:
    return {layer: int((mask > 0).sum()) for layer, mask in getattr(masks, kind).items()}


def test_units_to_keep_stay_in_samples_masks_and_pruned_models():
    student = closed(GateConfig(kinds=tuple(KINDS), keep=KEEP))
    gates = student.gates
    gated = {kind: [layer for other, layer, _ in gates.items() if other == kind] for kind in KINDS}
    assert gated == {
        "conv": [1, 2, 3, 4, 5],
        "heads": [0, 1, 2],
        "ffn": [0, 2],
        "attention": [],  # would take the heads with them
        "feed_forward": [],
    }
    fitted = final_masks(student, Budget(0.42))
    for masks in (gates.masks(), gates.sample(torch.Generator().manual_seed(0))):
        assert open_units(masks, "heads") == {0: 2, 1: 2, 2: 2}
        assert open_units(masks, "ffn") == {0: 5, 2: 5}
        assert set(open_units(masks, "conv").values()) == {1}
    assert min(open_units(fitted, "heads").values()) >= 2
    for layer, mask in gates.masks().heads.items():
        likeliest = gates.groups["heads"][str(layer)].log_alpha.topk(2).indices
        assert set(mask.nonzero()[:, 0].tolist()) == set(likeliest.tolist())
    shape = prune(student).config
    assert shape.conv_channels[0] == shape.conv_channels[6] == 12
    assert shape.ffn[1] == 24
    budget = Budget(0.5)
    expected = student.expected_costs(budget)["parameters"].item()
    # conv layers keep one channel in any case, which gates do not expect
    assert expected == pytest.approx(budget.costs(shape)["parameters"], rel=0.02)


def test_a_budget_that_the_kept_units_exceed_is_refused():
    everything = {"conv": list(range(7)), "heads": [0, 1, 2], "ffn": {"min": 23}}
    with pytest.raises(RunError, match="the smallest model that these gates allow costs"):
        prune(closed(GateConfig(keep=everything)), Budget(0.5))


def test_keep_names_every_fault():
    with pytest.raises(ConfigError) as caught:
        GateConfig(
            kinds=("conv", "heads"),
            estimator="guess",
            keep={"ffn": [0], "heads": {"least": 1}, "conv": {"layers": [-1], "min": 0.5}},
        )
    for part in (
        "estimator is 'guess', allowed: sample, straight_through",
        "keep names 'ffn', allowed: the kinds that have gates (conv, heads)",
        "keep.heads is {'least': 1}, allowed: layers, or a mapping with layers and min",
        "keep.conv has layers [-1], allowed: a list of layers from 0",
        "keep.conv.min is 0.5, allowed: 0 or more",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match=r"keep\.heads has layer 3, allowed: 0 to 2"):
        GatedModel(tiny("hubert"), GateConfig(keep={"heads": [3]}))


def test_straight_through_samples_are_binary_with_the_gradient_of_the_sample():
    torch.manual_seed(0)
    log_alpha = torch.randn(500, requires_grad=True)
    uniform = torch.rand(500)
    hard = sample(log_alpha, uniform, "straight_through")
    soft = sample(log_alpha, uniform)
    assert set(hard.tolist()) == {0.0, 1.0}
    assert torch.equal(hard > 0, soft > 0)
    (through,) = torch.autograd.grad(hard.sum(), log_alpha)
    (clamped,) = torch.autograd.grad(soft.sum(), log_alpha)
    assert bool((through > 0).all())  # of closed units, too
    inside = (soft > 0) & (soft < 1)
    assert 50 < int(inside.sum()) < 450
    torch.testing.assert_close(through[inside], clamped[inside])
    assert not bool(clamped[~inside].any())


def test_binary_gates_fold_nothing_into_the_weights():
    student = GatedModel(tiny("hubert"), GateConfig(estimator="straight_through")).eval()
    for _, _, gate in student.gates.items():
        gate.log_alpha.data.normal_(0, 2)
    for masks in (student.gates.masks(), final_masks(student, Budget(0.3))):
        values = torch.cat(
            [mask for kind in ("conv", "heads", "ffn") for mask in getattr(masks, kind).values()]
        )
        assert set(values.tolist()) == {0.0, 1.0}
    pruned = prune(student, Budget(0.3))
    assert_same(outputs(student, final_masks(student, Budget(0.3))), outputs(pruned))
    whole, cut = (
        model.encoder.transformer.layers[0].feed_forward.output_dense.weight.detach().T
        for model in (student.model, pruned)
    )
    assert {tuple(unit.tolist()) for unit in cut} < {tuple(unit.tolist()) for unit in whole}


def test_the_mask_for_evaluation_ranks_gates_that_are_shut_beyond_any_soft_value():
    """Soft values of -300 and -200 are both 0 in float32."""
    gates = HardConcrete(4)
    gates.log_alpha.data[:] = torch.tensor([-300.0, 9.0, -200.0, 9.0])
    assert gates.soft()[0] == gates.soft()[2] == 0
    gates.open_probability = lambda: torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert gates.hard_mask().nonzero()[:, 0].tolist() == [1, 3]
    assert torch.topk(gates.log_alpha, 3).indices.tolist()[-1] == 2
