"""The whole encoder for inference: the same hidden states, sooner."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..fft_conv import SpectralConv
from ..packing import Packing
from ..precision import AUTOCAST, PRECISIONS
from ..speech_model import SpeechModel, checked, frame_lengths, normalise
from ..transformer import PositionalConv, PositionalStack
from .folded_extractor import Front, gelu_
from .folded_transformer import FoldedLayer, Linear

SPILL = 2  # frames after an utterance's end that s3prl, which rounds up, may still count to it


def fold(model: SpeechModel, precision: str = "fp32") -> FoldedModel:
    """Prepare a model for inference; it stays as it is. To be repeated whenever its weights change.

    Args:
        model: on any device; its dropout is left out.
        precision: ``fp32``; or ``bf16`` or ``fp16`` for matrix products and convolutions. The
            first convolution, the positional ones, norms, softmax, residual stream and hidden
            states are float32 in all of them.

    Raises:
        ConfigError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, allowed: {', '.join(PRECISIONS)}")
    with torch.no_grad():
        return FoldedModel(model, AUTOCAST.get(precision, torch.float32))


class FoldedModel:
    """A :class:`SpeechModel` that only infers, made by :func:`fold`.

    Frames of a batch lie one after another without their padding. Weight norm is multiplied in;
    queries, keys and values come from one product.
    """

    def __init__(self, model: SpeechModel, dtype: torch.dtype) -> None:
        self.config = model.config
        self.front = Front(model.feature_extractor, model.config, dtype)
        projection, transformer = model.encoder.feature_projection, model.encoder.transformer
        layers: list[Any] = list(transformer.layers)
        self.projection_norm = projection.layer_norm
        self.projection = Linear.of(dtype, projection.projection)
        self.positions = _convolutions(transformer.pos_conv_embed)
        self.stacked = isinstance(transformer.pos_conv_embed, PositionalStack)
        self.norm, self.table = transformer.layer_norm, transformer.relative_positions
        self.layers = [FoldedLayer(layer, dtype) for layer in layers]

    @torch.no_grad()
    def extract_features(
        self, waveforms: Tensor, lengths: Tensor | None = None, num_layers: int | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """As :meth:`SpeechModel.extract_features`; of an utterance's padding, all but :data:`SPILL` is 0."""
        config = self.config
        waveforms = checked(waveforms, config)
        if config.normalize_waveform:
            waveforms = normalise(waveforms, lengths)
        frames = config.frames(waveforms.shape[1])
        if lengths is not None:
            lengths = frame_lengths(config, lengths)
        heard = Packing([frames] * len(waveforms) if lengths is None else lengths.tolist())
        kept = Packing(heard.valid, SPILL, frames)
        if not kept.total:
            empty = waveforms.new_zeros(len(waveforms), frames, config.embed_dim)
            return [empty, *(empty.clone() for _ in self.layers[:num_layers])], lengths
        with torch.autocast(waveforms.device.type, enabled=False):
            x = self.projection(self.projection_norm(self.front(waveforms.float(), heard))).float()
            x = heard.move(x, kept)
            states = [x, *self._transformer(x, kept, frames, num_layers)]
        return [kept.unpack(state, frames) for state in states], lengths

    def _transformer(self, x: Tensor, packing: Packing, frames: int, depth: int | None) -> list[Tensor]:
        x = x + self._positional(x, packing, frames)
        if not self.config.layer_norm_first:
            x = self.norm(x)
        tables = None if self.table is None else [self.table(group.frames) for group in packing.groups]
        states = []
        for layer in self.layers[:depth]:
            x = layer(x, packing, tables)
            states.append(x)
        return states

    def _positional(self, x: Tensor, packing: Packing, frames: int) -> Tensor:
        wider = Packing(packing.valid, packing.more + self.config.pos_conv_reach, frames)
        x = packing.move(x, wider)
        for convolution in self.positions:
            x = convolution(x, wider)
            x = gelu_(F.layer_norm(x, x.shape[-1:]) if self.stacked else x)
        return wider.move(x, packing)


def _convolutions(block: PositionalConv | PositionalStack) -> list[SpectralConv]:
    if isinstance(block, PositionalConv):
        conv = block.conv
        return [SpectralConv(conv.weight(), conv.bias.detach(), conv.groups)]
    layers: list[Any] = list(block.layers)
    convs = [layer.conv for layer in layers]
    return [SpectralConv(conv.weight.detach(), conv.bias.detach(), conv.groups) for conv in convs]
