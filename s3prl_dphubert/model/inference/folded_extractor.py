"""The conv feature extractor for inference, in stretches of an utterance that fit the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..feature_extractor import ConvLayer, FeatureExtractor
from ..model_config import ModelConfig
from ..packing import Packing
from .folded_transformer import frozen, frozen_copy, gelu_

STRETCH = 200  # frames that run through all conv layers at once
ALIGN = (
    8  # channels of the first layer come in multiples of it: an odd number costs a tenth of all layers' time
)


class FoldedConv(nn.Module):
    """A conv layer after the first, over frames x channels: convolution in ``dtype``, LayerNorm, GELU.

    Args:
        layer: the layer whose weights are used.
        dtype: number type of the convolution.
        more: channels that come in beside those of the layer, and are ignored.
    """

    def __init__(self, layer: ConvLayer, dtype: torch.dtype, more: int = 0) -> None:
        super().__init__()
        weight, bias = layer.conv.weight.detach()[:, :, None], layer.conv.bias  # (C_out, C_in, 1, K)
        weight = F.pad(weight, (0, 0, 0, 0, 0, more))
        self.weight = frozen(weight.to(dtype).contiguous(memory_format=torch.channels_last))
        self.bias = None if bias is None else frozen(bias.to(dtype))
        self.stride = layer.conv.stride[0]
        norm = layer.layer_norm
        self.layer_norm = None if norm is None else frozen_copy(norm)

    def forward(self, x: Tensor) -> Tensor:
        """x (T_in, C_in) -> (T_out, C_out)."""
        # oneDNN reads the windows of a one-row convolution in place, at the speed of matrix products.
        # As a product they would have to be copied, since their rows overlap.
        y = F.conv2d(x.t()[None, :, None], self.weight, self.bias, (1, self.stride))[0, :, 0].t()
        return gelu_(y if self.layer_norm is None else self.layer_norm(y))


class FoldedExtractor(nn.Module):
    """A :class:`FeatureExtractor` that computes utterance by utterance, without the padding.

    The first layer is a matrix product of windows of the waveform. GroupNorm after it needs the mean and
    variance of each output channel over time. Both follow from the mean and the covariance of the windows,
    so the norm is folded into weights of each utterance, and its input is never stored. That layer stays
    in float32. Its channels are padded with zeros to a multiple of :data:`ALIGN`, unless a LayerNorm would
    count them.

    Args:
        extractor: the module whose weights are used.
        config: shape of its model.
        dtype: number type of the other convolutions.
    """

    def __init__(self, extractor: FeatureExtractor, config: ModelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.dtype = config, dtype
        layers: list[Any] = list(extractor.conv_layers)
        first, *others = layers
        self.weight = frozen(first.conv.weight.detach()[:, 0].t().contiguous())  # (K, C)
        self.bias = None if first.conv.bias is None else frozen(first.conv.bias)
        self.norm: Any = None if first.layer_norm is None else frozen_copy(first.layer_norm)
        grouped = isinstance(self.norm, nn.GroupNorm) and len(others) > 0
        self.more = -self.weight.shape[1] % ALIGN if grouped else 0  # channels of zeros
        self.others = nn.ModuleList(
            FoldedConv(layer, dtype, 0 if index else self.more) for index, layer in enumerate(others)
        )
        self.scale = frozen(extractor.dummy_weight)

    def forward(self, waveforms: Tensor, packing: Packing) -> Tensor:
        """waveforms (B, T) -> (N, C), packed, in float32."""
        pieces = [
            piece
            for index, rows in packing.utterances()
            for piece in self._utterance(waveforms[index], rows.stop - rows.start)
        ]
        return torch.cat(pieces).float().mul_(self.scale)

    def _utterance(self, waveform: Tensor, frames: int) -> Iterator[Tensor]:
        """Yield the first ``frames`` frames of an utterance (T,), stretch by stretch."""
        stride, field = self.config.stride, self.config.min_samples
        weight, bias = self.first_weights(waveform)
        for begin in range(0, frames, STRETCH):
            size = min(STRETCH, frames - begin)
            x = self.first(waveform.narrow(0, begin * stride, (size - 1) * stride + field), weight, bias)
            for conv in self.others:
                x = conv(x)
            yield x

    def first_weights(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight (K, C) and bias (C,) of the first layer for an utterance (T,), its padding included.

        C is the padded number of channels.
        """
        if not isinstance(self.norm, nn.GroupNorm):
            return self.weight, self.bias
        windows = self._windows(waveform).double()
        mean = windows.mean(0)
        covariance = windows.t() @ windows / len(windows) - mean.outer(mean)
        weight = self.weight.double()
        variance = (weight * (covariance @ weight)).sum(0).clamp(min=0)
        scale = self.norm.weight / (variance + self.norm.eps).sqrt()
        weight = weight * scale
        bias = self.norm.bias - mean @ weight
        return F.pad(weight.float(), (0, self.more)), F.pad(bias.float(), (0, self.more))

    def first(self, waveform: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """First layer with its :meth:`first_weights`: (T,) -> (T_out, C), in the type of the others."""
        windows = self._windows(waveform)
        x = windows @ weight if bias is None else torch.addmm(bias, windows, weight)
        return gelu_(self.norm(x) if isinstance(self.norm, nn.LayerNorm) else x).to(self.dtype)

    def _windows(self, waveform: Tensor) -> Tensor:
        """waveform (T,) -> (T_out, K), a view."""
        return waveform.unfold(0, self.config.conv_kernels[0], self.config.conv_strides[0])
