"""Audio between two effects as SoX represents it: 32-bit integers, rounded and clipped after each effect."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import DataError

FULL_SCALE = 2.0**31  # stands for 1.0
LARGEST = 2**31 - 1
BITS = {torch.uint8: 8, torch.int16: 16, torch.int32: 32, torch.float32: 32}


@dataclass(frozen=True)
class Signal:
    """Samples between two effects.

    Attributes:
        samples: int32 (C, T).
        rate: sampling rate in Hz.
    """

    samples: np.ndarray
    rate: int

    def like(self, samples: np.ndarray) -> Signal:
        """Return a signal of the same rate with other samples (C, T), rounded and clipped unless int32."""
        return replace(self, samples=samples if samples.dtype == np.int32 else to_samples(samples))


def to_samples(values: np.ndarray) -> np.ndarray:
    """Round float64 values to the nearest int32, halves away from zero, and clip."""
    away = np.copysign(0.5, values)
    away += values
    return np.clip(away, -FULL_SCALE, LARGEST, out=away).astype(np.int32)


def from_floats(values: np.ndarray, name: str) -> np.ndarray:
    """Convert -1.0 .. 1.0 to int32 as SoX reads 32-bit floats, rounding towards zero.

    Raises:
        DataError: a value is NaN or infinite; ``name`` is that of the source.
    """
    if not np.isfinite(values).all():
        raise DataError(f"{name}: holds NaN or infinity, allowed: finite samples")
    return np.clip(values.astype(np.float64) * FULL_SCALE, -FULL_SCALE, LARGEST).astype(np.int32)


def from_tensor(tensor: torch.Tensor, rate: int, channels_first: bool) -> Signal:
    """Convert a tensor (C, T), or (T, C) unless ``channels_first``, to a signal.

    Raises:
        DataError: the tensor has another shape or type, NaN or infinity, or the rate is not positive.
    """
    if tensor.dtype not in BITS:
        allowed = ", ".join(str(kind) for kind in BITS)
        raise DataError(f"tensor: dtype is {tensor.dtype}, allowed: {allowed}")
    if tensor.ndim != 2:
        raise DataError(f"tensor: shape is {tuple(tensor.shape)}, allowed: two dimensions")
    if rate <= 0:
        raise DataError(f"sample_rate is {rate}, allowed: above 0")
    values = tensor.detach().cpu().numpy()
    if not channels_first:
        values = values.T
    if not len(values):
        raise DataError(f"tensor: shape is {tuple(tensor.shape)}, allowed: one channel or more")
    if tensor.dtype == torch.float32:
        samples = from_floats(values, "tensor")
    elif tensor.dtype == torch.uint8:
        samples = (values.astype(np.int32) - 128) << 24
    else:
        samples = values.astype(np.int32) << (32 - BITS[tensor.dtype])
    return Signal(samples, int(rate))


def to_tensor(signal: Signal, dtype: torch.dtype, channels_first: bool) -> torch.Tensor:
    """Convert a signal to a tensor (C, T), or (T, C) unless ``channels_first``.

    Floats are multiples of 2**-24, as in SoX.
    """
    samples = signal.samples if channels_first else signal.samples.T
    if dtype == torch.int32:
        values = samples
    elif dtype == torch.float32:
        values = ((samples >> 7) + (samples >> 6 & 1)).astype(np.float32) * np.float32(2.0**-24)
    else:
        drop = 32 - BITS[dtype]
        values = np.minimum((samples.astype(np.int64) + (1 << (drop - 1))) >> drop, (1 << (31 - drop)) - 1)
        values = (values + 128).astype(np.uint8) if dtype == torch.uint8 else values.astype(np.int16)
    # Effects may leave a view of the caller's memory, which torch must not share.
    return torch.from_numpy(np.array(values, order="C"))
