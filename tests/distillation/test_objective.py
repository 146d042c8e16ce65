"""Losses, gates and schedules against numbers computed by the published implementation."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from s3prl_dphubert.distillation.objective import Objective, ObjectiveConfig, distances, gram_distance
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model import ModelConfig
from s3prl_dphubert.pruning.budget import Budget, Lagrangian
from s3prl_dphubert.pruning.gates import GateConfig, Gates, HardConcrete
from s3prl_dphubert.training.optimizer import linear_schedule
from tests.helpers.golden import GOLDEN

FACTS = json.loads((GOLDEN / "objective.json").read_text())
TENSORS = load_file(GOLDEN / "objective.safetensors")


@pytest.mark.parametrize("cos_type", ["raw", "log_sig"])
def test_loss_terms(cos_type):
    wanted = FACTS["distill_loss"][cos_type]
    config = ObjectiveConfig(cos_type=cos_type, **wanted["weights"])
    total, terms = distances(TENSORS["student"], TENSORS["teacher"], config)
    assert float(total) == pytest.approx(wanted["total"], abs=1e-6)
    assert set(terms) == {"l1", "l2", "cos"}
    for name, value in terms.items():
        assert float(value) == pytest.approx(wanted[name], abs=1e-6)


def test_gate_masks():
    gates = HardConcrete(64)
    gates.log_alpha.data.copy_(TENSORS["gate_log_alpha"])
    torch.testing.assert_close(
        gates.sample(TENSORS["gate_uniform"]), TENSORS["gate_train_mask"], atol=1e-6, rtol=0
    )
    torch.testing.assert_close(gates.hard_mask(), TENSORS["gate_eval_mask"], atol=1e-6, rtol=0)
    assert gates.open_probability().sum().item() == pytest.approx(FACTS["gate_l0_norm"], rel=1e-6)


def test_eval_mask_follows_log_alpha():
    gates = HardConcrete(64)
    before = gates.hard_mask()
    gates.log_alpha.data.neg_()
    gates.log_alpha.data -= 3
    assert not torch.equal(before, gates.hard_mask())


def test_learning_rates_exactly():
    wanted = FACTS["lr_warmup15_max50_base2e-4_per_update"]
    assert [linear_schedule(update, 2e-4, 15, 50) for update in range(len(wanted))] == wanted


def test_target_sparsity_exactly():
    wanted = FACTS["target_sparsity_0.75_warmup5_per_update"]
    budget = Budget(0.75, warmup=5)
    assert [budget.targets(update)["parameters"] for update in range(len(wanted))] == wanted


def test_multipliers_ascend():
    lagrangian = Lagrangian()
    group = {"params": lagrangian.parameters(), "maximize": True}
    optimizer = torch.optim.AdamW([group], lr=0.1, weight_decay=0.0)

    def penalty(sparsity):
        return lagrangian({"parameters": torch.tensor(sparsity)}, {"parameters": 0.7})

    penalty(0.2).backward()
    optimizer.step()
    l1, l2 = lagrangian.multipliers[0]
    assert l1 < 0 < l2
    # with them, less openness than wanted is cheaper than more
    assert penalty(0.7) < penalty(0.2)


def test_each_count_has_its_multipliers():
    lagrangian = Lagrangian(["parameters", "macs"])
    lagrangian.multipliers.data[:] = torch.tensor([-1.0, 2.0])
    targets = {"parameters": 0.7, "macs": 0.6}

    def gradients(*values):
        sparsity = [torch.tensor(value, requires_grad=True) for value in values]
        lagrangian.zero_grad()
        lagrangian(dict(zip(targets, sparsity, strict=True)), targets).backward()
        return [value.grad.item() for value in sparsity]

    # -1 + 2 * 2 * gap of every count that falls short
    assert gradients(0.6, 0.5) == pytest.approx([-1.4, -1.4], abs=1e-5)
    # one that a tighter one drags beyond its target is left alone
    assert gradients(0.6, 0.9) == pytest.approx([-1.4, 0], abs=1e-5)
    # and beyond both, the tighter one alone comes back
    assert gradients(0.8, 0.9) == pytest.approx([-0.6, 0], abs=1e-5)
    assert gradients(0.9, 0.65) == pytest.approx([0, -0.8], abs=1e-5)


def test_projections_start_as_identity():
    config = ObjectiveConfig(groups=((0,), (1, 2)))
    objective = Objective(config, 8, 8, 2, 2)
    hidden = [torch.randn(2, 5, 8) for _ in range(3)]
    loss, terms = objective(hidden, hidden)
    assert len(objective.projections) == 2
    assert terms["l1"].item() == 0
    assert loss.item() == pytest.approx(-1, abs=1e-6)


def test_predlayer_predicts_from_the_last_layer():
    objective = Objective(ObjectiveConfig(mode="predlayer", groups=((4, 8, 12),)), 8, 16, 2, 12)
    hidden = [torch.randn(2, 5, 8) for _ in range(3)]
    predicted = torch.stack(list(objective.predictions(hidden)), 1)
    assert predicted.shape == (2, 3, 5, 16)
    changed = torch.stack(list(objective.predictions([hidden[0] + 1, hidden[1] + 1, hidden[2]])), 1)
    assert torch.equal(predicted, changed)
    assert objective.depth == 12


def test_gram_matrices_compare_frames_with_frames():
    """Against numbers by numpy, for a student that is narrower than its teacher."""
    student = [torch.randn(2, 5, 6) for _ in range(3)]
    teacher = [torch.randn(2, 5, 8) for _ in range(5)]
    config = ObjectiveConfig(groups=((0,), ((1, 2), (2, 4))), gram=2.0, gram_intra=0.5)
    assert config.target_layers == [0, 2, 4, 1, 3]
    objective = Objective(config, 6, 8, 2, 4)
    loss, terms = objective(student, {n: teacher[n] for n in config.target_layers})
    plain, _ = Objective.forward(objective, student, teacher)

    def error(a, b, c, d):
        products = [x.numpy() @ y.numpy().transpose(0, 2, 1) / x.shape[-1] for x, y in ((a, b), (c, d))]
        return float(((products[0] - products[1]) ** 2).mean())

    layers = [error(student[s], student[s], teacher[t], teacher[t]) for s, t in ((0, 0), (1, 2), (2, 4))]
    inner = [error(student[s - 1], student[s], teacher[t - 1], teacher[t]) for s, t in ((1, 2), (2, 4))]
    assert terms["gram"].item() == pytest.approx(sum(layers) / 3, rel=1e-5)
    assert terms["gram_intra"].item() == pytest.approx(sum(inner) / 2, rel=1e-5)
    rest = terms["l1"] + terms["cos"]
    assert loss.item() == pytest.approx(
        (rest + 2 * terms["gram"] + 0.5 * terms["gram_intra"]).item(), rel=1e-5
    )
    assert loss.item() == plain.item()


def test_a_student_with_its_teachers_frames_has_no_gram_distance():
    """A rotation of the width changes no product of two frames."""
    teacher = [torch.randn(2, 5, 8) for _ in range(3)]
    rotation = torch.linalg.qr(torch.randn(8, 8))[0]
    objective = Objective(ObjectiveConfig(groups=((0,), (1, 2)), gram=1.0, gram_intra=1.0), 8, 8, 2, 2)
    _, terms = objective([state @ rotation for state in teacher], teacher)
    assert terms["gram"].item() == pytest.approx(0, abs=1e-6)
    assert terms["gram_intra"].item() == pytest.approx(0, abs=1e-6)
    assert terms["l1"].item() > 0.1


def test_gram_matrices_are_computed_in_single_precision():
    """Also where the training multiplies in half precision."""
    states = [torch.randn(2, 9, 64) for _ in range(2)]
    expected = gram_distance(states[:1] * 2, states[1:] * 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert gram_distance(states[:1] * 2, states[1:] * 2).item() == expected.item()


def test_clusters_match_means_of_layers():
    config = ObjectiveConfig(mode="clusters", groups=((0,), ((1, 2), (2, 4))), gram=1.0)
    objective = Objective(config, 8, 8, 2, 4)
    assert len(objective.projections) == 2
    teacher = [torch.randn(2, 5, 8) for _ in range(5)]
    # other layers than the teacher's, with the same mean
    student = [teacher[0], teacher[2] + 1, teacher[4] - 1]
    _, terms = objective(student, {n: teacher[n] for n in config.target_layers})
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {"l1": 0, "cos": -1, "gram": 0}, abs=1e-5
    )
    changed = objective([student[0], student[1] + 1, student[2]], teacher)[1]
    assert changed["l1"].item() == pytest.approx(0.25, abs=1e-5)  # 0 and 0.5, of two groups


def test_gram_matrices_need_matched_layers():
    for values, message in (
        (
            {"mode": "distilhubert", "gram": 1.0},
            "gram and gram_intra compare layers, allowed in distilhubert: 0",
        ),
        ({"mode": "clusters", "gram_intra": 1.0}, "gram_intra is 1.0, allowed in clusters: 0"),
        ({"gram": -1.0}, "gram is -1.0, allowed: 0 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            ObjectiveConfig(**values)
    with pytest.raises(ConfigError, match="gram_intra needs a matched layer above 0"):
        Objective(ObjectiveConfig(groups=((0,),), gram_intra=1.0), 8, 8, 2, 2)


def test_pairs_match_layers_of_other_numbers():
    config = ObjectiveConfig(groups=[[0], [[1, 4], [2, 8], 3]])
    assert config.groups == ((0,), ((1, 4), (2, 8), 3))
    assert config.layers == [0, 4, 8, 3]
    objective = Objective(config, 8, 8, 3, 12)
    assert (len(objective.projections), objective.depth) == (2, 8)
    student = [torch.randn(2, 5, 8) for _ in range(4)]
    teacher = [torch.full((2, 5, 8), torch.nan) for _ in range(9)]
    for mine, theirs in ((0, 0), (1, 4), (2, 8), (3, 3)):
        teacher[theirs] = student[mine]
    loss, terms = objective(student, teacher)
    assert terms["l1"].item() == 0
    assert loss.item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (5, "groups is 5, allowed: lists of layers"),
        ([0, 4], r"groups is \(0, 4\), allowed: lists of layers"),
        ([["a"], [True], [[1, 2, 3]]], r"groups has \['a', True, \(1, 2, 3\)\], allowed: layers from 0"),
        ([[-1]], r"groups has \[-1\]"),
        ([[[1, 4], [2, 4]]], "each layer from 0 at most once"),
        ([[]], "at least one"),
    ],
)
def test_groups_that_mean_nothing(groups, message):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(groups=groups)


def test_pairs_are_for_layer2layer_and_for_layers_there_are():
    with pytest.raises(ConfigError, match="groups has pairs, allowed in predlayer"):
        ObjectiveConfig(mode="predlayer", groups=((4, (1, 8)),))
    with pytest.raises(ConfigError) as caught:
        Objective(ObjectiveConfig(groups=(((4, 13),),)), 8, 8, 3, 12)
    assert "teacher's layer 13, allowed: 0 to 12" in str(caught.value)
    assert "student's layer 4, allowed: 0 to 3" in str(caught.value)


def test_objective_names_every_fault():
    with pytest.raises(ConfigError) as caught:
        ObjectiveConfig(mode="other", cos_type="x", l1=-1.0, groups=((1, 1),))
    for part in ("mode is 'other'", "cos_type is 'x'", "l1 is -1.0", "groups is ((1, 1),)"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="layer 12, allowed: 0 to 6"):
        Objective(ObjectiveConfig(groups=((0,), (12,))), 8, 8, 6, 6)


def test_a_conv_layer_never_closes():
    config = ModelConfig(
        conv_channels=(4,) * 7, embed_dim=16, total_heads=2, head_dim=8, heads=((0, 1),), ffn=(8,)
    )
    gates = Gates(config, GateConfig(kinds=("conv",)))
    for _, _, gate in gates.items():
        gate.log_alpha.data.sub_(40)
    generator = torch.Generator().manual_seed(0)
    for masks in (gates.masks(), gates.sample(generator)):
        assert len(masks.conv) == 7
        assert all(int((mask > 0).sum()) == 1 for mask in masks.conv.values())


def test_gates_name_unknown_kinds():
    with pytest.raises(ConfigError, match="kinds has \\['rows'\\], allowed: conv"):
        GateConfig(kinds=("conv", "rows"))


def test_budget_names_every_fault():
    with pytest.raises(ConfigError) as caught:
        Budget({"parameters": 1.5, "flops": 0.5, "macs": "half"}, warmup=-1, seconds=0, round_to=0)
    for part in (
        "sparsity.parameters is 1.5, allowed: between 0 and 1",
        "sparsity names 'flops', allowed: parameters, published, macs, superb_macs",
        "sparsity.macs is 'half'",
        "warmup is -1",
        "seconds is 0",
        "round_to is 0",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="sparsity is empty"):
        Budget({})
    with pytest.raises(ConfigError, match="parameters and published, allowed: one of the two"):
        Budget({"published": 0.5, "parameters": 0.5})
