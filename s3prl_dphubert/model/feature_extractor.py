"""The conv feature extractor and the feature projection: waveforms to frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .masks import NO_MASKS, Masks, open_layer_norm
from .model_config import ModelConfig
from .transformer import linear


class ConvLayer(nn.Module):
    """Convolution; GroupNorm over time, LayerNorm over channels or no norm; GELU."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        channels = config.conv_channels[index]
        self.layer_norm: nn.Module | None = None
        if config.extractor_mode == "layer_norm":
            self.layer_norm = nn.LayerNorm(channels)
        elif index == 0:
            self.layer_norm = nn.GroupNorm(channels, channels)
        self.conv = nn.Conv1d(
            config.conv_channels[index - 1] if index else 1,
            channels,
            config.conv_kernels[index],
            config.conv_strides[index],
            bias=config.conv_bias,
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, exact: bool = True) -> Tensor:
        """Run the layer.

        Args:
            x: (B, C_in, T_in).
            mask: (C_out,) for the output channels.
            exact: as in :class:`.Masks`.

        Returns:
            (B, C_out, T_out).
        """
        x = self.conv(x)
        if isinstance(self.layer_norm, nn.LayerNorm):
            x = _layer_norm(x.transpose(1, 2), self.layer_norm, mask if exact else None).transpose(1, 2)
        elif self.layer_norm is not None:
            x = self.layer_norm(x)
        x = F.gelu(x)
        return x if mask is None else x * mask[:, None].to(x.dtype)


class FeatureExtractor(nn.Module):
    """The conv layers, then one frozen scale per channel (``dummy_weight``).

    The scale is 1 except in pruned models, where the last conv layer's soft mask is folded
    into it. Its name is the one in released checkpoints.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dummy_weight = nn.Parameter(torch.ones(config.conv_channels[-1]), requires_grad=False)
        self.conv_layers = nn.ModuleList(ConvLayer(config, i) for i in range(len(config.conv_channels)))

    def forward(self, waveforms: Tensor, masks: Masks = NO_MASKS) -> Tensor:
        """waveforms (B, T) -> (B, F, C)."""
        x = waveforms[:, None]
        for index, layer in enumerate(self.conv_layers):
            x = layer(x, masks.conv.get(index), masks.exact)
        return x.transpose(1, 2) * self.dummy_weight


class FeatureProjection(nn.Module):
    """LayerNorm over the channels, which some models lack, and a linear map to the Transformer's width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, eps = config.conv_channels[-1], config.layer_norm_eps
        self.layer_norm = nn.LayerNorm(channels, eps) if config.projection_norm else None
        self.projection = linear(config.conv_channels[-1], config.embed_dim)
        self.dropout = nn.Dropout(config.projection_dropout)

    def forward(self, x: Tensor, masks: Masks = NO_MASKS, last: int = -1) -> Tensor:
        """x (B, F, C) -> (B, F, D); ``last`` is the index of the last conv layer, in ``masks``."""
        if self.layer_norm is not None:
            x = _layer_norm(x, self.layer_norm, masks.conv.get(last) if masks.exact else None)
        return self.dropout(self.projection(x))


def _layer_norm(x: Tensor, norm: nn.LayerNorm, mask: Tensor | None) -> Tensor:
    """LayerNorm of x (..., C), over the units that a mask (C,) leaves open if there is one."""
    return norm(x) if mask is None else open_layer_norm(x, norm.weight, norm.bias, norm.eps, mask > 0)
