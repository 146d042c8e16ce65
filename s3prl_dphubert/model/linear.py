"""Linear maps that may be empty."""

from __future__ import annotations

import warnings

import torch
from torch import nn


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Linear map that may have no inputs or no outputs; weights normal with std 0.02, bias 0."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        # Without a device it takes the CPU, even where a model is only outlined on "meta".
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=torch.get_default_device())
    if layer.weight.numel():
        nn.init.normal_(layer.weight, std=0.02)
    if outputs:
        nn.init.zeros_(layer.bias)
    return layer
