"""Targets of the masked prediction: the cluster of each 20 ms frame of the training speech."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchaudio
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ..checkpoints.load import load_model
from ..constants import SAMPLE_RATE
from ..utils.files import replacing

WINDOW, STRIDE = 400, 320  # samples in the receptive field of a frame, and between frames
CHUNK_FRAMES = 750  # frames processed at once, 15 s
Features = Callable[[Tensor], Tensor]


def samples_of(frames: int) -> int:
    """Return the number of samples that give exactly that many frames."""
    return (frames - 1) * STRIDE + WINDOW


def read_samples(stream: np.ndarray, start: int, frames: int) -> Tensor:
    """Return the float32 samples (T,) of ``frames`` frames from frame ``start`` of an int16 stream."""
    first = start * STRIDE
    return torch.from_numpy(stream[first : first + samples_of(frames)].astype(np.float32) / 32768)


def mfcc(waveforms: Tensor) -> Tensor:
    """Return MFCCs with deltas, (B, T) -> (B, F, 39), with zero mean per window and one row per frame."""
    rows = []
    for waveform in waveforms:
        static = torchaudio.compliance.kaldi.mfcc(
            waveform[None] * 32768, use_energy=False, sample_frequency=SAMPLE_RATE, dither=0.0
        ).T
        delta = torchaudio.functional.compute_deltas(static)
        both = torch.cat([static, delta, torchaudio.functional.compute_deltas(delta)]).T
        rows.append((both - both.mean(0))[::2])
    frames = (waveforms.shape[1] - WINDOW) // STRIDE + 1
    return torch.stack(rows)[:, :frames]


def features_named(name: str) -> Features:
    """Return the features called ``mfcc``, or ``CHECKPOINT:LAYER`` for a hidden state of a model."""
    if name == "mfcc":
        return mfcc
    checkpoint, _, layer = name.rpartition(":")
    model = load_model(checkpoint)
    return lambda waveforms: model.extract_features(waveforms, num_layers=int(layer))[0][-1]


@torch.no_grad()
def cluster(stream: np.ndarray, features: Features, classes: int, cache: Path, seed: int) -> None:
    """Fit k-means on features of 300 random chunks, scaled to unit variance, and write it to ``cache``."""
    from sklearn.cluster import MiniBatchKMeans

    starts = np.random.default_rng(seed).integers(0, len(stream) // STRIDE - CHUNK_FRAMES - 1, 300)
    rows = [features(read_samples(stream, s, CHUNK_FRAMES)[None])[0] for s in tqdm(starts, desc="features")]
    samples = torch.cat(rows)
    scale = samples.std(0)
    means = MiniBatchKMeans(classes, n_init=5, batch_size=10_000, max_iter=200, random_state=seed)
    means.fit((samples / scale).numpy())
    with replacing(cache) as partial:
        save_file({"centres": torch.from_numpy(means.cluster_centers_).float(), "scale": scale}, partial)


@torch.no_grad()
def label(stream: np.ndarray, features: Features, means: Path, cache: Path) -> np.ndarray:
    """Return the cluster of every frame of a stream (F,), computed once and cached as ``.npy``."""
    if not cache.exists():
        saved = load_file(means)
        rows = []
        total = (len(stream) - WINDOW) // STRIDE + 1
        for start in tqdm(range(0, total, CHUNK_FRAMES), desc=cache.stem, mininterval=10):
            frames = min(CHUNK_FRAMES, total - start)
            scaled = features(read_samples(stream, start, frames)[None])[0] / saved["scale"]
            rows.append(torch.cdist(scaled, saved["centres"]).argmin(-1).to(torch.int16).numpy())
        with replacing(cache) as partial, open(partial, "wb") as file:
            np.save(file, np.concatenate(rows))
    return np.load(cache)
