"""The whole encoder: waveforms in, hidden states of every layer out."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.device_copies import start_copy
from .feature_extractor import FeatureExtractor, FeatureProjection
from .masks import NO_MASKS, Masks
from .model_config import ModelConfig
from .transformer import PositionalConv, PositionalStack, RelativePositions, TransformerLayer

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *AUTOCAST)
"""Number types that the matrix products and convolutions of a model may have."""

PADDED = -1e4  # added to attention scores of padded keys; finite, so that no row is all -inf


class Transformer(nn.Module):
    """Positional convolutions, then LayerNorm in post-norm models, then the layers.

    Pre-norm models have the LayerNorm too, after the layers; the hidden states do not go through it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pos_conv_embed = (PositionalStack if config.pos_conv_depth > 1 else PositionalConv)(config)
        self.layer_norm = nn.LayerNorm(config.embed_dim, config.layer_norm_eps)
        self.layer_norm_first = config.layer_norm_first
        self.dropout = nn.Dropout(config.dropout)
        relative = config.num_buckets and any(config.heads)
        self.relative_positions = RelativePositions(config) if relative else None
        self.layers = nn.ModuleList(TransformerLayer(config, i) for i in range(config.num_layers))

    def forward(self, x: Tensor, padding: Tensor | None, masks: Masks, depth: int) -> list[Tensor]:
        """Run the first ``depth`` layers.

        Args:
            x: (B, F, D).
            padding: (B, 1, 1, F), added to attention scores.
            masks: of all layers.
            depth: number of layers to run.

        Returns:
            The output of each (B, F, D).
        """
        x, table = self.add_positions(x)
        outputs = []
        for layer in self.layers[:depth]:
            x = layer(x, padding, table, masks)
            outputs.append(x)
        return outputs

    def add_positions(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, F, D) -> input of the first layer (B, F, D); biases of relative positions (heads, F, F)."""
        if self.layer_norm_first and x.device.type != "cpu" and torch.is_autocast_enabled(x.device.type):
            # On a GPU autocast lets LayerNorm give float32; here none is in the way of what layers add up.
            x = x.float()
        x = x + self.pos_conv_embed(x)
        if not self.layer_norm_first:
            x = self.layer_norm(x)
        table = None if self.relative_positions is None else self.relative_positions(x.shape[1])
        return self.dropout(x), table


class Encoder(nn.Module):
    """Feature projection and Transformer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.feature_projection = FeatureProjection(config)
        self.transformer = Transformer(config)


class SpeechModel(nn.Module):
    """HuBERT, wav2vec 2.0, WavLM, UniSpeech or data2vec without its training heads, dense or pruned.

    Tensors have the names of the released checkpoints, but for WavLM's position table, which
    belongs to all layers and lives beside them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = FeatureExtractor(config)
        self.encoder = Encoder(config)
        self.apply(initialise)

    def extract_features(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        num_layers: int | None = None,
        masks: Masks = NO_MASKS,
        corrupt: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the hidden states of every layer.

        Args:
            waveforms: (B, T) at 16 kHz, zero after each utterance's end.
            lengths: (B,) valid samples, integers from 1 to T, or ``None`` if nothing is padded. GroupNorm's
                statistics include the padding, as in the published models. They are checked on the host, so
                on the CPU they spare a wait for the GPU of ``waveforms``.
            num_layers: number of layers to run, all L by default.
            masks: gates of a student in training; nothing is masked by default.
            corrupt: change of the Transformer's input (B, F, D), such as masked frames of a student in
                training; hidden state 0 is the input before it.

        Returns:
            A list of L + 1 tensors (B, F, D): the feature projection's output, then each
            layer's (in pre-norm models before the final LayerNorm); and the valid frames (B,)
            on the device of ``lengths``, or ``None``.

        Raises:
            ValueError: ``waveforms`` is not (B, T) or shorter than one frame, or ``lengths`` does not fit.
        """
        config = self.config
        check_inputs(waveforms, lengths, config)
        if config.normalize_waveform:
            waveforms = normalise(waveforms, lengths, config.normalize_eps)
        x = self.feature_extractor(waveforms, masks)
        x = self.encoder.feature_projection(x, masks, len(config.conv_channels) - 1)
        padding = None
        if lengths is not None:
            lengths = self.frame_lengths(lengths)
            valid = lengths if lengths.device == x.device else start_copy(lengths, x.device)
            padded = torch.arange(x.shape[1], device=x.device) >= valid[:, None]
            x = x.masked_fill(padded[:, :, None], 0.0)
            padding = (padded[:, None, None, :] * PADDED).to(x.dtype)
        depth = config.num_layers if num_layers is None else num_layers
        inner = x if corrupt is None else corrupt(x)
        return [x, *self.encoder.transformer(inner, padding, masks, depth)], lengths

    forward = extract_features

    def unfreeze(self) -> None:
        """Let gradients reach all parameters that hidden states depend on, but the extractor's fixed scale.

        The others would stop DistributedDataParallel with its defaults, which waits for all gradients. They
        are the final LayerNorm of pre-norm models and those before their sublayers without units.
        """
        self.requires_grad_(True)
        self.feature_extractor.dummy_weight.requires_grad_(False)
        transformer = self.encoder.transformer
        if self.config.layer_norm_first:
            transformer.layer_norm.requires_grad_(False)
        for layer in transformer.layers:
            if isinstance(layer, TransformerLayer):
                for norm in layer.idle_norms():
                    norm.requires_grad_(False)

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Convert lengths in samples (B,) to lengths in frames (B,)."""
        return frame_lengths(self.config, lengths)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision in ``bf16`` or ``fp16``; off for ``fp32``."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def frame_lengths(config: ModelConfig, lengths: Tensor) -> Tensor:
    """Convert lengths in samples (B,) to lengths in frames (B,)."""
    for kernel, stride in zip(config.conv_kernels, config.conv_strides, strict=True):
        lengths = (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)
    return lengths


def check_inputs(waveforms: Tensor, lengths: Tensor | None, config: ModelConfig) -> None:
    """Check the inputs of a model.

    Raises:
        ValueError: ``waveforms`` is not (B, T) of floating-point numbers or shorter than one frame, or
            ``lengths`` is neither ``None`` nor (B,) 32 or 64-bit integers from 1 to T.
    """
    if not isinstance(waveforms, Tensor) or not waveforms.is_floating_point():
        kind = waveforms.dtype if isinstance(waveforms, Tensor) else type(waveforms).__name__
        raise ValueError(f"waveforms is {kind}, allowed: a torch tensor (B, T) of floating-point numbers")
    if waveforms.ndim != 2 or waveforms.shape[1] < config.min_samples:
        shape, least = tuple(waveforms.shape), config.min_samples
        raise ValueError(f"waveforms has shape {shape}, allowed: (B, T) with T of at least {least} samples")
    if lengths is None:
        return
    batch, samples = waveforms.shape
    if lengths.shape != (batch,):
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}, allowed: ({batch},)")
    if lengths.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"lengths has type {lengths.dtype}, allowed: torch.int64, torch.int32 (samples)")
    if torch.compiler.is_compiling():  # values are not known yet
        return
    outside = [length for length in lengths.tolist() if not 1 <= length <= samples]
    if outside:
        raise ValueError(f"lengths has {outside[0]}, allowed: 1 to {samples} samples, those of waveforms")


def normalise(waveforms: Tensor, lengths: Tensor | None, eps: float) -> Tensor:
    """Scale each utterance to zero mean and unit variance.

    Args:
        waveforms: (B, T).
        lengths: (B,) valid samples, or ``None`` if nothing is padded.
        eps: added to the variance.

    Returns:
        (B, T), zero after each utterance's end.
    """
    if lengths is None:
        return F.layer_norm(waveforms, waveforms.shape[-1:], eps=eps)
    if torch.compiler.is_compiling():  # values of lengths are not known yet
        valid = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
        mean = (waveforms * valid).sum(1, keepdim=True) / lengths[:, None]
        centred = (waveforms - mean) * valid
        variance = centred.square().sum(1, keepdim=True) / lengths[:, None]
        return centred * torch.rsqrt(variance + eps)
    rows = []
    for waveform, length in zip(waveforms, lengths.tolist(), strict=True):
        valid = F.layer_norm(waveform[:length], (length,), eps=eps)
        rows.append(F.pad(valid, (0, waveforms.shape[1] - length)))
    return torch.stack(rows)


def initialise(module: nn.Module) -> None:
    """He's initialisation for the convolutions, BERT's for the position table."""
    if isinstance(module, nn.Conv1d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
