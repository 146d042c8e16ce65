"""Units that are reopened to use up a budget: those that were closest to being open."""

from __future__ import annotations

import torch

from s3prl_dphubert.model.cost import masked_widths
from s3prl_dphubert.pruning.allocation import fit_masks
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.pruning.gates import GateConfig, Gates
from tests.helpers.models import tiny


def test_units_are_reopened_by_their_openness_over_all_layers():
    """Each layer keeps 6 of 24 units for certain; those left in layer 1 are nearly open, others are shut."""
    config = tiny("hubert").config
    gates = Gates(config, GateConfig(kinds=("ffn",)))
    order = {}
    for layer, row in gates.groups["ffn"].items():
        order[int(layer)] = torch.randperm(24, generator=torch.Generator().manual_seed(int(layer)))
        rest = (-1.0 if layer == "1" else -9.0) - 0.01 * torch.arange(18)
        row.log_alpha.data[order[int(layer)]] = torch.cat([torch.full((6,), 9.0), rest])
    budget = Budget({"parameters": 0.1})
    full = budget.costs(config)["parameters"]
    each = 2 * config.embed_dim + 1  # parameters of a unit
    limit = float(full - (3 * 24 - 18 - 10) * each)  # room for 10 more
    fitted = fit_masks(config, gates, gates.masks(), budget, {"parameters": limit})
    open_units = {layer: set(mask.nonzero()[:, 0].tolist()) for layer, mask in fitted.ffn.items()}
    assert {layer: len(units) for layer, units in open_units.items()} == {0: 6, 1: 16, 2: 6}
    assert open_units == {
        layer: set(order[layer][: len(units)].tolist()) for layer, units in open_units.items()
    }
    assert budget.costs(config, masked_widths(config, fitted))["parameters"] == limit
