"""Hidden states of all samples, pooled as each probe needs them, computed once for a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..constants import SAMPLE_RATE
from ..data import audio
from ..errors import DataError
from .aligned_corpus import AlignedCorpus
from .layer_sources import LEAST_SAMPLES, LayerSource
from .probe_samples import PARTS, PHONES, WORDS, ProbeSamples

LARGEST = 6e4  # float16 ends at 65,504
BLOCK = 64 * 2**20  # bytes of float32 that are read at once


@dataclass(frozen=True)
class PooledStates:
    """Vectors of all samples of a probe.

    Args:
        values: (L + 1, N, D') float16, as a rule mapped from a file.
    """

    values: np.ndarray

    @property
    def layers(self) -> int:
        """Number of hidden states, L + 1."""
        return len(self.values)

    @property
    def width(self) -> int:
        """Length of a vector, D'."""
        return self.values.shape[2]

    def layer(self, index: int, rows: np.ndarray) -> Tensor:
        """Return the vectors (n, D') of a layer in float32."""
        return torch.from_numpy(self.values[index][rows].astype(np.float32))

    def blocks(self, rows: np.ndarray) -> Iterator[Tensor]:
        """Yield the vectors (L + 1, n, D') of the rows in float32, one block after the other."""
        size = max(1, BLOCK // (4 * self.layers * self.width))
        for start in range(0, len(rows), size):
            yield torch.from_numpy(self.values[:, rows[start : start + size]]).float()


def durations(corpus: AlignedCorpus) -> np.ndarray:
    """Return the lengths (U,) of the recordings in seconds, from their headers.

    Raises:
        DataError: a recording is missing or unreadable.
    """
    return np.array([audio.probe(each.path).samples_16k / SAMPLE_RATE for each in corpus.utterances])


def extract(
    source: LayerSource,
    corpus: AlignedCorpus,
    probes: Mapping[str, ProbeSamples],
    folder: Path,
    jobs: int = 1,
) -> dict[str, PooledStates]:
    """Run the model over every recording once.

    Args:
        source: the model.
        corpus: the recordings.
        probes: name -> samples.
        folder: empty folder for one file for each probe: (L + 1) x N x D' x 2 bytes.
        jobs: recordings that are computed at a time.

    Returns:
        Probe -> vectors, which stay in the files of ``folder``.

    Raises:
        DataError: a recording cannot be read, or the model gives no finite hidden states.
    """
    extraction = _Extraction(source, corpus, probes, folder)
    needed = sorted({int(each) for probe in probes.values() for each in np.unique(probe.utterances)})
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // jobs))
    try:
        extraction.run(needed[0])  # alone, since it opens the files and folds the model
        with ThreadPoolExecutor(jobs) as pool:
            done = pool.map(extraction.run, needed[1:])
            list(tqdm(done, source.name, len(needed), initial=1, unit="recording", mininterval=1))
    finally:
        torch.set_num_threads(threads)
    return {name: PooledStates(values) for name, values in extraction.values.items()}


class _Extraction:
    """Hidden states of one recording after the other, pooled into the rows of each probe."""

    def __init__(
        self, source: LayerSource, corpus: AlignedCorpus, probes: Mapping[str, ProbeSamples], folder: Path
    ) -> None:
        self.source, self.corpus, self.probes, self.folder = source, corpus, probes, folder
        self.values: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def run(self, index: int) -> None:
        """Compute one recording and store the vectors of its samples."""
        path = self.corpus.utterances[index].path
        waveform = audio.read(path)
        if len(waveform) < LEAST_SAMPLES:
            waveform = np.pad(waveform, (0, LEAST_SAMPLES - len(waveform)))
        hidden = torch.stack(self.source.states(torch.from_numpy(waveform)))  # (L + 1, F, D)
        if not hidden.isfinite().all():
            raise DataError(f"{path}: {self.source.name} gives NaN or infinite hidden states")
        if not self.values:
            self._open(*hidden.shape[::2])
        for name, probe in self.probes.items():
            first, last = np.searchsorted(probe.utterances, [index, index + 1])
            if last > first:
                pooled = self._pool(name, hidden, probe.spans[first:last])
                self.values[name][:, first:last] = pooled.clamp(-LARGEST, LARGEST).half().numpy()

    def _open(self, layers: int, width: int) -> None:
        for name, probe in self.probes.items():
            shape = (layers, len(probe), probe.parts * width)
            self.values[name] = np.lib.format.open_memmap(
                self.folder / f"{name}.npy", "w+", np.float16, shape=shape
            )

    def _pool(self, name: str, hidden: Tensor, spans: np.ndarray) -> Tensor:
        """Return the vectors (L + 1, n, D') of n spans in seconds (n, 2)."""
        if name == PHONES:
            return hidden[:, self._nearest(spans[:, 0], hidden.shape[1])]
        if name == WORDS:
            return self._thirds(hidden, spans)
        return torch.cat([hidden.mean(1), hidden.std(1, correction=0)], dim=-1)[:, None]

    def _position(self, seconds: np.ndarray) -> np.ndarray:
        """Return times as fractional numbers of frames, whole in the middle of a frame."""
        return (seconds * SAMPLE_RATE - self.source.centre) / self.source.stride

    def _nearest(self, seconds: np.ndarray, frames: int) -> np.ndarray:
        return np.clip(np.rint(self._position(seconds)), 0, frames - 1).astype(int)

    def _thirds(self, hidden: Tensor, spans: np.ndarray) -> Tensor:
        """Return the means over three equal parts of each span; a part without a frame takes the nearest."""
        layers, frames, width = hidden.shape
        edges = spans[:, :1] + np.linspace(0, 1, PARTS[WORDS] + 1) * (spans[:, 1:] - spans[:, :1])
        places = np.clip(np.ceil(self._position(edges)), 0, frames).astype(int)
        first, last = places[:, :-1], places[:, 1:]
        nearest = self._nearest((edges[:, :-1] + edges[:, 1:]) / 2, frames)
        first, last = np.where(last > first, first, nearest), np.where(last > first, last, nearest + 1)
        sums = torch.nn.functional.pad(hidden.double().cumsum(1), (0, 0, 1, 0))
        means = (sums[:, last] - sums[:, first]) / torch.from_numpy(last - first)[None, :, :, None]
        return means.float().reshape(layers, len(spans), PARTS[WORDS] * width)
