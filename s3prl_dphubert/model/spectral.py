"""Long grouped convolutions over packed frames, through the Fourier transform."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .packing import Packing


class SpectralConv:
    """Convolution over frames with "same" padding, as products of spectra of overlapping blocks.

    Overlap-save: blocks of ``size`` frames, each of which gives ``size - kernel + 1`` outputs. A
    kernel of 128 frames over 48 channels a group takes a tenth of the time of the sums themselves.
    Always float32: no other type has a complex one.

    Args:
        weight: (D, D / groups, kernel), the norm of weight norm multiplied in.
        bias: (D,).
        groups: groups G of the channels.
    """

    def __init__(self, weight: Tensor, bias: Tensor, groups: int) -> None:
        self.kernel, self.groups, self.bias = weight.shape[-1], groups, bias
        self.size = 1 << (2 * self.kernel - 1).bit_length()
        self.hop = self.size - self.kernel + 1
        # Conjugate, since a convolution layer correlates: it does not turn its kernel round.
        spectrum = torch.fft.rfft(weight.float(), self.size).conj_physical()
        split = spectrum.unflatten(0, (groups, -1))  # (G, out, in, bins)
        self.spectrum = split.permute(3, 0, 2, 1).flatten(0, 1).contiguous()  # (bins G, in, out)

    def __call__(self, x: Tensor, packing: Packing) -> Tensor:
        """x (N, D) packed -> (N, D)."""
        blocks = torch.cat([self._blocks(x[rows]) for _, rows in packing.utterances()])
        number, _, width = blocks.shape
        spectra = torch.fft.rfft(blocks, dim=1).unflatten(2, (self.groups, -1))  # (number, bins, G, in)
        product = torch.bmm(spectra.permute(1, 2, 0, 3).flatten(0, 1), self.spectrum)
        product = product.unflatten(0, (-1, self.groups)).permute(2, 0, 1, 3).reshape(number, -1, width)
        y = torch.fft.irfft(product, self.size, dim=1)[:, : self.hop]
        sizes = [-(-(rows.stop - rows.start) // self.hop) for _, rows in packing.utterances()]
        pieces = zip(y.split(sizes), packing.utterances(), strict=True)
        valid = [piece.flatten(0, 1)[: rows.stop - rows.start] for piece, (_, rows) in pieces]
        return torch.cat(valid).add_(self.bias)

    def _blocks(self, x: Tensor) -> Tensor:
        """x (F, D) of one utterance -> (blocks, size, D), overlapping, zeros around the ends."""
        number = -(-len(x) // self.hop)
        before = self.kernel // 2
        after = (number - 1) * self.hop + self.size - before - len(x)
        padded = F.pad(x, (0, 0, before, after))
        return padded.unfold(0, self.size, self.hop).transpose(1, 2)
