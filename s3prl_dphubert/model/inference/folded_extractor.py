"""The conv feature extractor for inference: stretches of an utterance that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..feature_extractor import ConvLayer, FeatureExtractor
from ..model_config import ModelConfig
from ..packing import Packing

STRETCH = 200  # frames that run through all conv layers at once


def gelu_(x: Tensor) -> Tensor:
    """GELU in place: a fresh tensor costs more than the function, for its memory pages."""
    return torch.ops.aten.gelu_(x)


@dataclass(frozen=True)
class Conv:
    """A conv layer after the first, over frames x channels.

    Args:
        weight: (C_out, C_in, 1, K), channels last.
        bias: (C_out,), if there is one.
        stride: in frames of its input.
        norm: its LayerNorm, if there is one.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int
    norm: nn.LayerNorm | None

    def __call__(self, x: Tensor) -> Tensor:
        """x (T_in, C_in) -> (T_out, C_out)."""
        # oneDNN's convolution of one row takes its windows where they lie and runs at the speed of
        # matrix products; without a copy of them those would need strides below their width.
        y = F.conv2d(x.t()[None, :, None], self.weight, self.bias, (1, self.stride))[0, :, 0].t()
        return gelu_(_normed(y, self.norm))


class Front:
    """What :class:`FeatureExtractor` computes, utterance by utterance and without the padding.

    The first layer is a product with windows of the waveform. GroupNorm after it needs the mean and
    variance of each output channel over time: they follow from the mean and the covariance of the
    windows, so that the norm is folded into weights for each utterance and its input is never
    stored. That layer stays in float32.

    Args:
        extractor: the module whose weights are used.
        config: its shape.
        dtype: type of the other convolutions.
    """

    def __init__(self, extractor: FeatureExtractor, config: ModelConfig, dtype: torch.dtype) -> None:
        self.config, self.dtype = config, dtype
        layers: list[Any] = list(extractor.conv_layers)
        first, *others = layers
        self.weight = first.conv.weight.detach()[:, 0].t().contiguous()  # (K, C)
        self.bias: Tensor | None = first.conv.bias
        self.norm: Any = first.layer_norm  # GroupNorm, LayerNorm or None
        self.over_channels = isinstance(self.norm, nn.LayerNorm)
        self.others = [_conv(layer, dtype) for layer in others]
        scale = extractor.dummy_weight.detach()
        self.scale = None if bool((scale == 1).all()) else scale

    def __call__(self, waveforms: Tensor, packing: Packing) -> Tensor:
        """waveforms (B, T) -> (N, C) packed, in float32."""
        pieces = [
            piece
            for index, rows in packing.utterances()
            for piece in self._utterance(waveforms[index], rows.stop - rows.start)
        ]
        x = torch.cat(pieces).float()
        return x if self.scale is None else x.mul_(self.scale)

    def _utterance(self, waveform: Tensor, frames: int) -> Iterator[Tensor]:
        """Yield the first so many frames of an utterance (T,), stretch by stretch."""
        stride, field = self.config.stride, self.config.min_samples
        weight, bias = self.weights_for(waveform)
        for begin in range(0, frames, STRETCH):
            size = min(STRETCH, frames - begin)
            x = self.first(waveform.narrow(0, begin * stride, (size - 1) * stride + field), weight, bias)
            for conv in self.others:
                x = conv(x)
            yield x

    def weights_for(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight (K, C) and bias (C,) of the first layer, for this utterance (T,) with its padding."""
        if self.over_channels or self.norm is None:
            return self.weight, self.bias
        windows = self._windows(waveform).double()
        mean = windows.mean(0)
        covariance = windows.t() @ windows / len(windows) - mean.outer(mean)
        weight = self.weight.double()
        variance = (weight * (covariance @ weight)).sum(0).clamp(min=0)
        scale = self.norm.weight / (variance + self.norm.eps).sqrt()
        weight = weight * scale
        return weight.float(), (self.norm.bias - mean @ weight).float()

    def first(self, waveform: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The first layer with its :meth:`weights_for`: (T,) -> (T_out, C), as the others take it."""
        windows = self._windows(waveform)
        x = windows @ weight if bias is None else torch.addmm(bias, windows, weight)
        return gelu_(_normed(x, self.norm) if self.over_channels else x).to(self.dtype)

    def _windows(self, waveform: Tensor) -> Tensor:
        """waveform (T,) -> (T_out, K), a view."""
        return waveform.unfold(0, self.config.conv_kernels[0], self.config.conv_strides[0])


def _conv(layer: ConvLayer, dtype: torch.dtype) -> Conv:
    weight, bias = layer.conv.weight.detach(), layer.conv.bias
    norm = layer.layer_norm if isinstance(layer.layer_norm, nn.LayerNorm) else None
    return Conv(
        weight[:, :, None].to(dtype).contiguous(memory_format=torch.channels_last),
        None if bias is None else bias.detach().to(dtype),
        layer.conv.stride[0],
        norm,
    )


def _normed(x: Tensor, norm: nn.Module | None) -> Tensor:
    return x if norm is None else norm(x)
