"""Chains of effects on tensors and files."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import BinaryIO

import numpy as np
import soundfile
import torch

from ..data.remote_files import readable
from .effects import parse
from .signal import Signal, from_floats, from_tensor, to_samples, to_tensor

INTEGERS = {"PCM_U8": torch.uint8, "PCM_16": torch.int16, "PCM_24": torch.int32, "PCM_32": torch.int32}


def apply_effects_tensor(
    tensor: torch.Tensor,
    sample_rate: int,
    effects: Sequence[Sequence[str]],
    channels_first: bool = True,
) -> tuple[torch.Tensor, int]:
    """Apply effects to a tensor, as ``torchaudio.sox_effects.apply_effects_tensor`` did.

    Args:
        tensor: float32, int32, int16 or uint8 (C, T), or (T, C) unless ``channels_first``.
        sample_rate: in Hz.
        effects: each a name and its arguments, as ``[["gain", "-3.0"], ["reverse"]]``.
        channels_first: ``tensor`` and the result are (C, T), else (T, C).

    Returns:
        A new tensor of the same type on the CPU, and its sampling rate in Hz.

    Raises:
        ConfigError: an effect or an argument is unknown; the message lists all of them.
        DataError: the tensor has another type or shape, or holds NaN or infinity.
    """
    chain = parse(effects)
    signal = from_tensor(tensor, sample_rate, channels_first)
    for effect in chain:
        signal = effect(signal)
    return to_tensor(signal, tensor.dtype, channels_first), signal.rate


def apply_effects_file(
    path: str | PathLike | BinaryIO,
    effects: Sequence[Sequence[str]],
    normalize: bool = True,
    channels_first: bool = True,
    format: str | None = None,
) -> tuple[torch.Tensor, int]:
    """Apply effects to a file, as ``torchaudio.sox_effects.apply_effects_file`` did.

    Args:
        path: path or open file, of any format that soundfile reads.
        effects: as for :func:`apply_effects_tensor`.
        normalize: ``False`` keeps PCM, unless FLAC, as integers: uint8, int16, or int32 for 24 and 32 bits.
        channels_first: the result is (C, T), else (T, C).
        format: ignored; the format is read from the file's header.

    Returns:
        float32 in -1.0 .. 1.0 unless ``normalize`` is ``False``, and its sampling rate in Hz.

    Raises:
        ConfigError: an effect or an argument is unknown; the message lists all of them.
        DataError: the file is missing, damaged, or holds NaN or infinity.
    """
    chain = parse(effects)
    dtype = torch.float32
    with readable(str(path)), soundfile.SoundFile(path) as file:
        signal = _decode(file)
        if not normalize and file.format != "FLAC":
            dtype = INTEGERS.get(file.subtype, torch.float32)
    for effect in chain:
        signal = effect(signal)
    return to_tensor(signal, dtype, channels_first), signal.rate


def _decode(file: soundfile.SoundFile) -> Signal:
    """Read all samples, rounded as SoX rounds them for the file's encoding."""
    if file.subtype == "FLOAT" or file.subtype.startswith("MPEG"):
        samples = from_floats(file.read(dtype="float32", always_2d=True), str(file.name))
    elif file.subtype == "DOUBLE":
        samples = to_samples(file.read(dtype="float64", always_2d=True) * 2.0**31)
    elif file.subtype in ("VORBIS", "OPUS"):
        samples = to_samples(file.read(dtype="float32", always_2d=True) * 2.0**15)
        samples = np.clip(samples, -(2**15), 2**15 - 1) << 16
    else:
        samples = file.read(dtype="int32", always_2d=True)
    return Signal(np.ascontiguousarray(samples.T), file.samplerate)
