"""The whole encoder for inference: the same hidden states in less time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ..fft_conv import FFTConv
from ..packing import Packing
from ..speech_model import AUTOCAST, PRECISIONS, SpeechModel, check_inputs, frame_lengths, normalise
from ..transformer import PositionalConv
from .folded_extractor import FoldedExtractor
from .folded_transformer import FoldedLayer, FoldedLinear, frozen_copy, gelu_
from .precision_choice import AUTO, resolve

SPILL = 2  # frames after an utterance's end that s3prl, which rounds up, may still count to it


def fold(model: SpeechModel, precision: str = "fp32") -> FoldedModel:
    """Prepare a model for inference.

    The model stays as it is. Weights that need no change share their memory with it, so fold it again
    after its weights have changed.

    Args:
        model: encoder with float32 weights, on any device.
        precision: ``fp32``; ``bf16`` or ``fp16`` for matrix products and convolutions; or ``auto``, which
            measures once per machine whether a lower one (``bf16``, on a GPU ``fp16``) is faster. The
            first convolution, the positional ones, norms, softmax, residual stream and hidden
            states are float32 in all of them.

    Raises:
        ConfigError: the precision is unknown, or ``model`` is no :class:`SpeechModel` in float32.
    """
    if precision not in (*PRECISIONS, AUTO):
        raise ConfigError(f"precision is {precision!r}, allowed: {', '.join((*PRECISIONS, AUTO))}")
    if not isinstance(model, SpeechModel):
        raise ConfigError(
            f"model is a {type(model).__name__}, allowed: a SpeechModel (prune gated ones first)"
        )
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if dtypes != {torch.float32}:
        raise ConfigError(f"model has weights in {', '.join(map(str, dtypes))}, allowed: torch.float32")
    device = next(model.parameters()).device
    with torch.no_grad():
        return FoldedModel(model, resolve(precision, model.config, device)).eval()


class FoldedModel(nn.Module):
    """A :class:`SpeechModel` that only infers, made by :func:`fold`.

    Frames of a batch lie one after another without their padding. Weight norm is multiplied in; queries,
    keys and values come from one product. All parameters are frozen; there is no dropout, so ``train()``
    and ``eval()`` make no difference. The number types are fixed when the model is folded.
    """

    def __init__(self, model: SpeechModel, precision: str) -> None:
        super().__init__()
        self.config, self.precision = model.config, precision
        dtype = AUTOCAST.get(precision, torch.float32)
        projection, transformer = model.encoder.feature_projection, model.encoder.transformer
        self.extractor = FoldedExtractor(model.feature_extractor, model.config, dtype)
        norm: Any = projection.layer_norm
        self.projection_norm = None if norm is None else frozen_copy(norm)
        self.projection = FoldedLinear(dtype, projection.projection)
        block: Any = transformer.pos_conv_embed
        if isinstance(block, PositionalConv):
            convs = [FFTConv(block.conv.weight(), block.conv.bias, block.conv.groups)]
        else:
            convs = [FFTConv(layer.conv.weight, layer.conv.bias, layer.conv.groups) for layer in block.layers]
        affine: Any = getattr(block, "batch_norm", None)
        self.batch_norm = None if affine is None else frozen_copy(affine)
        self.positions = nn.ModuleList(convs)
        self.norm = frozen_copy(transformer.layer_norm)
        relative = transformer.relative_positions
        self.relative_positions = None if relative is None else frozen_copy(relative)
        layers: list[Any] = list(transformer.layers)
        self.layers = nn.ModuleList(FoldedLayer(layer, dtype) for layer in layers)

    @torch.no_grad()
    def extract_features(
        self, waveforms: Tensor, lengths: Tensor | None = None, num_layers: int | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the hidden states of every layer, as :meth:`SpeechModel.extract_features` does.

        Of an utterance's padding only the first :data:`SPILL` frames are computed; the others are 0.
        """
        config = self.config
        check_inputs(waveforms, lengths, config)
        if config.normalize_waveform:
            waveforms = normalise(waveforms, lengths, config.normalize_eps)
        frames = config.frames(waveforms.shape[1])
        if lengths is not None:
            lengths = frame_lengths(config, lengths)
        unpadded = Packing([frames] * len(waveforms) if lengths is None else lengths.tolist())
        packing = Packing(unpadded.valid, SPILL, frames)
        depth = config.num_layers if num_layers is None else num_layers
        if not packing.total:
            empty = waveforms.new_zeros(len(waveforms), frames, config.embed_dim)
            return [empty, *(empty.clone() for _ in self.layers[:depth])], lengths
        with torch.autocast(waveforms.device.type, enabled=False):
            x = self.extractor(waveforms.float(), unpadded)
            x = self.project(x).float()
            x = unpadded.move(x, packing)
            states = [x, *self._transformer(x, packing, frames, depth)]
        return [packing.unpack(state, frames) for state in states], lengths

    forward = extract_features

    def _transformer(self, x: Tensor, packing: Packing, frames: int, depth: int) -> list[Tensor]:
        """x (N, D) -> outputs of the first ``depth`` layers, each (N, D)."""
        x = x + self.positional(x, packing, frames)
        if not self.config.layer_norm_first:
            x = self.norm(x)
        relative = self.relative_positions
        tables = None if relative is None else [relative(group.frames) for group in packing.groups]
        states = []
        for layer in self.layers[:depth]:
            x = layer(x, packing, tables)
            states.append(x)
        return states

    def project(self, x: Tensor) -> Tensor:
        """Feature projection of x (N, C) -> (N, D), in the type of the products."""
        return self.projection(x if self.projection_norm is None else self.projection_norm(x))

    def positional(self, x: Tensor, packing: Packing, frames: int) -> Tensor:
        """Positional convolutions of x (N, D) -> (N, D); no utterance has more than ``frames`` frames."""
        wider = Packing(packing.valid, packing.more + self.config.pos_conv_reach, frames)
        x = packing.move(x, wider)
        if self.batch_norm is not None:
            x = self.batch_norm(x)
        for convolution in self.positions:
            x = convolution(x, wider)
            x = gelu_(F.layer_norm(x, x.shape[-1:]) if self.config.pos_conv_depth > 1 else x)
        return wider.move(x, packing)

    def requires_grad_(self, requires_grad: bool = True) -> FoldedModel:
        """Do nothing: the parameters are frozen.

        Raises:
            ConfigError: ``requires_grad`` is ``True``.
        """
        if requires_grad:
            raise ConfigError("a folded model cannot be trained; train the model that it was folded from")
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FoldedModel:
        """Move the parameters (``to``, ``cuda``, ``cpu``, …) unless that would change their types."""
        for dtype in {parameter.dtype for parameter in self.parameters()}:
            if fn(torch.empty(0, dtype=dtype)).dtype != dtype:
                raise ConfigError(
                    f"a model folded in {self.precision} keeps its number types; "
                    f"fold again with another precision, allowed: {', '.join(PRECISIONS)}"
                )
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        """Take copies first, since loading overwrites parameters in the memory of the original model."""
        for parameter in self.parameters():
            parameter.data = parameter.data.clone()
        super()._load_from_state_dict(*args)
