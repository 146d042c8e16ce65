"""The speech of pre-training as one stream of samples, with a target for each frame of 20 ms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data.audio import read
from ..data.manifest import Manifest
from ..utils.files import replacing

WINDOW, STRIDE = 400, 320  # samples in the receptive field of a frame, and between frames


def samples_of(frames: int) -> int:
    """Return the number of samples that give exactly that many frames."""
    return (frames - 1) * STRIDE + WINDOW


@dataclass(frozen=True)
class Stream:
    """Clips one after another, each cut to whole frames, so that frame f begins at sample 320 f.

    Attributes:
        samples: int16 samples (T,).
        starts: first frame of each clip, and the number of all frames (N + 1,).
        weights: relative probability that a window begins in a clip, per second of it (N,).
    """

    samples: np.ndarray
    starts: np.ndarray
    weights: np.ndarray

    @classmethod
    def read(cls, manifest: Path, cache: Path, weight: Callable[[str], float]) -> Stream:
        """Read the clips of a manifest in the order of their paths, cached as ``.npz``."""
        paths = sorted(entry.path for entry in Manifest.load(manifest).entries)
        if not cache.exists():
            clips, frames = [], [0]
            for path in tqdm(paths, desc="read", unit="clip", mininterval=5):
                samples = np.round(read(path) * 32768).clip(-32768, 32767).astype(np.int16)
                clips.append(samples[: len(samples) // STRIDE * STRIDE])
                frames.append(len(clips[-1]) // STRIDE)
            with replacing(cache) as partial, partial.open("wb") as file:
                np.savez(file, samples=np.concatenate(clips), starts=np.cumsum(frames))
        with np.load(cache) as saved:
            return cls(saved["samples"], saved["starts"], np.array([weight(path) for path in paths]))

    def window(self, start: int, frames: int) -> Tensor:
        """Return the float32 samples (T,) of ``frames`` frames from frame ``start`` on."""
        first = start * STRIDE
        part = self.samples[first : first + samples_of(frames)]
        return torch.from_numpy(part.astype(np.float32) / 32768)

    def draw(self, batch: int, frames: int, random: np.random.Generator) -> np.ndarray:
        """Draw the first frames (B,) of windows that lie anywhere in the stream."""
        share = self.weights * np.diff(self.starts)
        clips = random.choice(len(share), batch, p=share / share.sum())
        offsets = random.random(batch) * np.diff(self.starts)[clips]
        # A window is as likely to end in a clip as to begin there.
        first = (self.starts[clips] + offsets - random.random(batch) * frames).astype(np.int64)
        return first.clip(0, self.starts[-1] - frames - 1)
