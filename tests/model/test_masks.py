"""Norms under masks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from s3prl_dphubert.model.masks import open_layer_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_layer_norm_over_open_units_is_that_of_the_cut_model(dtype):
    """In 16 bits, too, where 1 / 171 is 0.3 % off."""
    random = torch.Generator().manual_seed(0)
    x = (torch.randn(4, 50, 512, generator=random) * 3 + 2).to(dtype)
    weight, bias = torch.rand(512, generator=random) + 0.5, torch.randn(512, generator=random)
    is_open = torch.zeros(512, dtype=torch.bool)
    is_open[torch.randperm(512, generator=random)[:171]] = True
    normed = open_layer_norm(x, weight, bias, 1e-5, is_open)
    cut = F.layer_norm(x[..., is_open].float(), (171,), weight[is_open], bias[is_open])
    torch.testing.assert_close(normed[..., is_open], cut, atol=1e-5, rtol=1e-5)
    assert not normed[..., ~is_open].any()
