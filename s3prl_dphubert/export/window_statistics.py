"""Mean and covariance of the windows of a waveform that the first convolution sees.

GroupNorm normalises each channel by its mean and variance over a whole utterance, padding included. Both
follow from the mean m (K) and the covariance C (K, K) of the windows of the waveform: a channel with weight
w has the mean w m and the variance w C w. A graph computes m and C of the waveforms that it is given; where
these are only a part of an utterance, they are passed to it as the input ``statistics``.
"""

from __future__ import annotations

import numpy as np

from ..model import ModelConfig

BLOCK = 1 << 17  # windows at a time, which bounds memory to some 10 MB


def statistics_shape(config: ModelConfig, batch: int) -> tuple[int, int, int]:
    """Return the shape (B, K + 1, K) of the input ``statistics``."""
    kernel = config.conv_kernels[0]
    return batch, kernel + 1, kernel


def window_statistics(config: ModelConfig, waveform: np.ndarray, samples: int) -> np.ndarray:
    """Return the statistics of an utterance with its padding.

    Args:
        config: shape of the encoder, which gives kernel K and stride of the windows.
        waveform: (T,), zero after the end of the utterance.
        samples: samples of the utterance with all of its padding, at least T.

    Returns:
        (K + 1, K) in float32: the covariance (K, K), then the mean (K).
    """
    kernel, stride = config.conv_kernels[0], config.conv_strides[0]
    count = (samples - kernel) // stride + 1
    padded = np.pad(waveform, (0, max(0, min(kernel, samples - len(waveform)))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel)[::stride][:count]
    total, products = np.zeros(kernel), np.zeros((kernel, kernel))
    for start in range(0, len(windows), BLOCK):
        block = windows[start : start + BLOCK].astype(np.float64)
        total += block.sum(0)
        products += block.T @ block
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    return np.concatenate([covariance, mean[None]]).astype(np.float32)


def waveform_level(waveform: np.ndarray) -> np.ndarray:
    """Return mean and variance (2,) of an utterance (T,) without its padding, in float32."""
    waveform = waveform.astype(np.float64)
    return np.array([waveform.mean(), waveform.var()], np.float32)
