"""The positional convolution in training, through the Fourier transform: a third of the time on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .transformer import PositionalConv, PositionalStack


def positional(block: PositionalConv | PositionalStack, x: Tensor) -> Tensor:
    """As ``block(x)``, x (B, F, D) -> (B, F, D); only a single convolution on the CPU is done otherwise."""
    if x.device.type != "cpu" or not isinstance(block, PositionalConv):
        return block(x)
    conv = block.conv
    wide = torch.promote_types(x.dtype, torch.float32)  # no other types have a complex one
    y = spectral_conv(x.to(wide), conv.weight().to(wide), conv.groups) + conv.bias
    return F.gelu(y).to(x.dtype)


def spectral_conv(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Grouped convolution over frames with "same" padding, as products of spectra of overlapping blocks.

    Overlap-save, as :class:`.spectral.SpectralConv`, but differentiable.

    Args:
        x: (B, F, D).
        weight: (D, D / G, K).
        groups: G.

    Returns:
        (B, F, D); of an even kernel without the extra frame.
    """
    batch, frames, _ = x.shape
    kernel = weight.shape[-1]
    size = 1 << (2 * kernel - 1).bit_length()
    hop = size - kernel + 1
    number = -(-frames // hop)
    before = kernel // 2
    after = (number - 1) * hop + size - before - frames
    blocks = F.pad(x, (0, 0, before, after)).unfold(1, size, hop)  # (B, number, D, size)
    spectra = torch.fft.rfft(blocks).unflatten(2, (groups, -1))  # (B, number, G, in, bins)
    # Conjugate, since a convolution layer correlates: it does not turn its kernel round.
    kernels = torch.fft.rfft(weight, size).conj().unflatten(0, (groups, -1))  # (G, out, in, bins)
    left = spectra.permute(4, 2, 0, 1, 3).flatten(2, 3).flatten(0, 1)  # (bins G, B number, in)
    product = torch.bmm(left, kernels.permute(3, 0, 2, 1).flatten(0, 1))
    product = product.unflatten(0, (-1, groups)).unflatten(2, (batch, number))  # (bins, G, B, number, out)
    y = torch.fft.irfft(product.permute(2, 3, 1, 4, 0).flatten(2, 3), size)[..., :hop]
    return y.transpose(2, 3).flatten(1, 2)[:, :frames]
