"""Costs against figures of others: the SUPERB challenge's MACs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import GOLDEN

from s3prl_dphubert.budget import Budget
from s3prl_dphubert.cli import main
from s3prl_dphubert.cost import superb_macs
from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.model.config import dense_heads
from s3prl_dphubert.pruning import prune
from s3prl_dphubert.student import Student

from models import SHAPES, tiny  # isort: skip

LARGE = ModelConfig(
    extractor_mode="layer_norm",
    conv_bias=True,
    embed_dim=1024,
    total_heads=16,
    heads=dense_heads(24, 16),
    ffn=(4096,) * 24,
    layer_norm_first=True,
)


def test_superb_macs_of_hubert_base_to_the_last_digit():
    assert superb_macs(ModelConfig()) == {
        "short": 149_255_103_040,
        "medium": 261_280_279_552,
        "long": 422_366_359_296,
        "longer": 836_254_280_960,
    }


def test_superb_macs_of_wav2vec2_large_to_the_last_digit():
    assert sum(superb_macs(LARGE).values()) == 4_325_706_974_720


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
    student = Student(tiny(shape))
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
    student = Student(SpeechModel(config))
    budget = Budget({count: 0.4}, round_to=8)
    pruned = prune(student, budget).config
    assert 0.5 < budget.costs(pruned)[count] / budget.costs(config)[count] <= 0.6
    assert pruned.conv_channels != config.conv_channels
    assert all(width % 8 == 0 or width == 30 for width in pruned.conv_channels)
    assert all(width % 8 == 0 or width == 100 for width in pruned.ffn)
    free = prune(student, replace(budget, round_to=1)).config
    assert any(width % 8 and width != 30 for width in free.conv_channels)


def test_profile_prints_every_bucket(capsys):
    assert main(["profile", str(GOLDEN / "wavlm_pruned.pth"), "--seconds", "0.5", "--repeats", "1"]) == 0
    shown = capsys.readouterr().out
    for row in ("parameters", "short", "medium", "long", "longer", "SUPERB MACs", "real-time factor"):
        assert row in shown
    assert main(["profile", str(GOLDEN / "wavlm_pruned.pth"), "--repeats", "0"]) == 2
    assert "--repeats is 0, allowed: 1 or more" in capsys.readouterr().err
