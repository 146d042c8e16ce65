"""Costs against figures of others: the SUPERB challenge's MACs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.model.cost import expected_widths, macs, masked_widths, parameters, superb_macs
from s3prl_dphubert.model.model_config import dense_heads
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.gated_model import GatedModel
from s3prl_dphubert.pruning.gates import DEFAULT_KINDS, GateConfig, Gates
from s3prl_dphubert.pruning.structured import cut, cut_config, prune

from tests.helpers.models import FAMILIES, SHAPES, tiny  # isort: skip

PARAMETERS = {
    "hubert_base": 94_370_944,
    "hubert_large": 315_437_696,
    "wav2vec2_base": 94_370_944,
    "wav2vec2_large": 315_437_696,
    "wavlm_base": 94_381_168,
    "wavlm_large": 315_452_096,
    "data2vec_base": 93_163_520,
    "data2vec_large": 313_275_392,
}
"""Parameters that transformers 5.24 builds for the published configurations, its mask embedding left out."""

SUBLAYERS = ("conv", "heads", "ffn", "attention", "feed_forward")


def built(config):
    """Parameters of a model of that shape, without building its weights."""
    with torch.device("meta"):
        return sum(p.numel() for p in SpeechModel(config).parameters())


def closed(config, kinds, seed, emptied=()):
    """Gates that are certain: shut at random, with some groups (kind, layer) shut altogether."""
    generator = torch.Generator().manual_seed(seed)
    gates = Gates(config, GateConfig(kinds=kinds))
    for kind, layer, gate in gates.items():
        share = torch.rand(1, generator=generator)
        shut = torch.rand(len(gate.log_alpha), generator=generator) < share
        if kind == "conv":
            shut[torch.randint(len(shut), (1,), generator=generator)] = False
        if (kind, layer) in emptied:
            shut[:] = True
        gate.log_alpha.data = torch.where(shut, -200.0, 200.0)
    return gates


def no_attention(config):
    return tuple(("heads", layer) for layer in range(config.num_layers))


@pytest.mark.parametrize("family", FAMILIES)
def test_published_parameters(family):
    config = FAMILIES[family]
    assert list(FAMILIES) == list(PARAMETERS)
    assert len(FAMILIES) == 8
    assert built(config) == parameters(config) == PARAMETERS[family] + 512  # the scale after the extractor


@pytest.mark.parametrize("family", FAMILIES)
def test_expected_costs_are_the_costs_of_the_cut_model(family):
    """Of every family, with units, sublayers and whole kinds closed: parameters, MACs, SUPERB MACs."""
    config = FAMILIES[family]
    cases = [
        *((DEFAULT_KINDS, seed, ()) for seed in range(3)),
        *((SUBLAYERS, seed, ()) for seed in range(3, 6)),
        (DEFAULT_KINDS, 6, (("heads", 0), ("ffn", 1), ("heads", config.num_layers - 1))),
        (SUBLAYERS, 7, (("attention", 0), ("heads", 1), ("feed_forward", 2), ("ffn", 3))),
        (DEFAULT_KINDS, 8, no_attention(config)),
    ]
    seen = set()
    for kinds, seed, emptied in cases:
        gates = closed(config, kinds, seed, emptied)
        small = cut_config(config, gates.masks())
        widths = expected_widths(config, gates.expected())
        real = parameters(small), macs(small, 160_000), superb_macs(small)
        assert parameters(config, widths) == real[0] == built(small)
        assert macs(config, 160_000, widths) == real[1]
        assert superb_macs(config, widths) == real[2]
        budget = Budget({"parameters": 0.5, "macs": 0.5, "superb_macs": 0.5})
        assert [*budget.costs(config, widths).values()] == [real[0], real[1], sum(real[2].values())]
        seen.add(real[:2])
        seen |= {("empty", kind) for kind in ("heads", "ffn") if {(), 0} & set(getattr(small, kind))}
        seen |= {("gone", kind) for kind in ("heads", "ffn") if None in getattr(small, kind)}
    assert len(seen) == len(cases) + 4


@pytest.mark.parametrize("shape", SHAPES)
def test_published_pruning_drops_emptied_sublayers(shape):
    model = tiny(shape)
    gates = Gates(model.config, GateConfig(exact=False))
    for kind, layer in (("heads", "0"), ("ffn", "1")):
        gates.groups[kind][layer].log_alpha.data.fill_(-200)
    small = cut(model, gates.masks())
    assert small.config.heads[0] is None
    assert small.config.ffn[1] is None
    cost = parameters(model.config, masked_widths(model.config, gates.masks()))
    assert cost == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("shape", SHAPES)
def test_macs_are_what_a_running_model_multiplies(shape):
    """Convolutions, linear maps and matrix products as torch itself counts them."""
    model = tiny(shape)
    assert len(SHAPES) == 6
    emptied = (("attention", 0), ("heads", 1), ("feed_forward", 2), ("ffn", 0))
    counts = []
    for small in (model, cut(model, closed(model.config, SUBLAYERS, 1, emptied).masks())):
        config, samples = small.config, 8000
        frames = config.frames(samples)
        with (
            torch.inference_mode(),
            sdpa_kernel(SDPBackend.MATH),  # torch counts no fused attention on CPUs
            FlopCounterMode(display=False) as counter,
        ):
            small.extract_features(torch.randn(1, samples))
        heads = sum(len(layer or ()) for layer in config.heads)
        other = 4 * heads * frames**2 + 4 * frames * heads * config.head_dim
        assert macs(config, samples) == counter.get_total_flops() // 2 + other
        assert macs(config, [samples, 4000]) == macs(config, samples) + macs(config, 4000)
        counts.append(macs(config, samples))
    assert counts[1] < counts[0]


def test_superb_macs_of_hubert_base_to_the_last_digit():
    assert superb_macs(ModelConfig()) == {
        "short": 149_255_103_040,
        "medium": 261_280_279_552,
        "long": 422_366_359_296,
        "longer": 836_254_280_960,
    }


def test_superb_macs_of_wav2vec2_large_to_the_last_digit():
    assert sum(superb_macs(FAMILIES["wav2vec2_large"]).values()) == 4_325_706_974_720


def test_superb_macs_of_wavlm_base_to_the_last_digit():
    assert sum(superb_macs(FAMILIES["wavlm_base"]).values()) == 1_669_983_472_192


BUDGETS = (
    {"macs": 0.5},
    {"superb_macs": 0.5},
    {"parameters": 0.5, "macs": 0.3},
    {"parameters": 0.3, "macs": 0.5},
    {"published": 0.4, "macs": 0.4, "superb_macs": 0.4},
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shares", BUDGETS)
def test_budgets_are_kept(shares, shape):
    torch.manual_seed(0)
    student = GatedModel(tiny(shape))
    budget = Budget(shares, warmup=0)
    limits = budget.limits(budget.costs(student.model.config))
    pruned = prune(student, budget).config
    costs = budget.costs(pruned)
    used = {count: costs[count] / limit for count, limit in limits.items()}
    assert list(used) == list(shares)
    assert all(share <= 1 for share in used.values())
    assert max(used.values()) > 0.97  # what binds; one unit is 1 to 3 per cent of these tiny models


@pytest.mark.parametrize("count", ["parameters", "macs"])
def test_widths_are_rounded_within_the_budget(count):
    torch.manual_seed(0)
    config = ModelConfig(
        conv_channels=(30,) * 7,
        embed_dim=32,
        total_heads=4,
        head_dim=8,
        heads=dense_heads(3, 4),
        ffn=(100,) * 3,
        pos_conv_kernel=8,
        pos_conv_groups=4,
    )
    student = GatedModel(SpeechModel(config))
    budget = Budget({count: 0.4}, round_to=8)
    pruned = prune(student, budget).config
    assert 0.5 < budget.costs(pruned)[count] / budget.costs(config)[count] <= 0.6
    assert pruned.conv_channels != config.conv_channels
    assert all(width % 8 == 0 or width == 30 for width in pruned.conv_channels)
    assert all(width % 8 == 0 or width == 100 for width in pruned.ffn)
    free = prune(student, replace(budget, round_to=1)).config
    assert any(width % 8 and width != 30 for width in free.conv_channels)


class Operations(TorchDispatchMode):
    """Counts operations other than views, each of which is a kernel on a GPU."""

    VIEWS = (
        "view",
        "slice",
        "split",
        "select",
        "expand",
        "unsqueeze",
        "transpose",
        "detach",
        "alias",
        "unbind",
    )

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ not in self.VIEWS
        return function(*args, **kwargs or {})


@pytest.mark.parametrize(
    ("family", "most"), [("hubert_base", 130), ("wavlm_base", 200), ("wavlm_large", 200)]
)
def test_the_penalty_takes_few_operations_for_any_number_of_layers(family, most):
    """With its gradients."""
    config = FAMILIES[family]
    gates = Gates(config, GateConfig())
    with Operations() as operations:
        parameters(config, expected_widths(config, gates.expected())).backward()
    assert 20 < operations.count < most
    assert all(gate.log_alpha.grad is not None for _, _, gate in gates.items())


def test_the_chance_of_any_head_has_the_gradient_of_a_product():
    """The gradient of torch.prod is the same, but it first looks for zeros, for which a GPU has to wait."""
    config = replace(tiny("wavlm").config, heads=((0, 1, 3), (), (0, 1, 2, 3)))
    rows = {layer: torch.rand(len(config.heads[layer]), requires_grad=True) for layer in (0, 2)}
    rows[2].data[1] = 1.0
    widths = expected_widths(config, {"heads": rows})
    assert widths.any_head[1] == widths.heads[1] == 0
    for layer, row in rows.items():
        expected = 1 - (1 - row.double()).prod()
        torch.testing.assert_close(widths.any_head[layer], expected)
        ours, theirs = (
            torch.autograd.grad(v, row, retain_graph=True)[0] for v in (widths.any_head[layer], expected)
        )
        torch.testing.assert_close(ours, theirs)
