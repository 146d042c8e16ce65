"""The positional convolution in training, through the Fourier transform: a third of the time on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fft_conv import blocks, convolve, spectrum
from ..transformer import PositionalConv, PositionalStack


def positional(block: PositionalConv | PositionalStack, x: Tensor) -> Tensor:
    """As ``block(x)``, x (B, F, D) -> (B, F, D); only a single convolution on the CPU is done otherwise."""
    if x.device.type != "cpu" or not isinstance(block, PositionalConv):
        return block(x)
    conv, frames = block.conv, x.shape[1]
    wide = torch.promote_types(x.dtype, torch.float32)  # no other types have a complex one
    weight = conv.weight().to(wide)
    cut = blocks(x.to(wide), weight.shape[-1])  # (B, blocks, size, D)
    y = convolve(cut.flatten(0, 1), spectrum(weight, conv.groups), weight.shape[-1])
    y = y.unflatten(0, cut.shape[:2]).flatten(1, 2)[:, :frames]
    return F.gelu(y + conv.bias).to(x.dtype)
