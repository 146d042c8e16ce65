"""Replacement for the parts of asteroid that s3prl's enhancement and separation use, with the same results.

asteroid is no longer maintained and requires old releases of torchmetrics and pytorch-lightning; all it
adds to pystoi and pesq is a few formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch

from ..constants import SAMPLE_RATE
from ..errors import RunError

EPS = 1e-8
FILTER = 512  # taps of the distortion filter that BSS Eval allows between a source and its estimate
METRICS = ("si_sdr", "stoi", "pesq")
PESQ_OF_SILENCE = 1.0  # the lowest score; the package fails on silence
PESQ_MODES = {8000: "nb", 16_000: "wb"}


def get_metrics(
    mix: np.ndarray,
    clean: np.ndarray,
    estimate: np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    metrics_list: Sequence[str] = METRICS,
    compute_permutation: bool = False,
) -> dict[str, float]:
    """Return the metrics of the estimates, and those of the mixture as ``input_NAME``, averaged over sources.

    Args:
        mix: mixture (1, T).
        clean: sources (K, T).
        estimate: estimates of the sources (K, T).
        sample_rate: in Hz.
        metrics_list: ``si_sdr`` in dB, ``stoi`` from 0 to 1, ``pesq`` as MOS-LQO (P.862.2 at 16 kHz).
        compute_permutation: assign the estimates to the sources by BSS Eval instead of by their order.

    Raises:
        RunError: a metric is unknown, its package is missing, or PESQ detects no speech.
    """
    if compute_permutation:
        estimate = estimate[order(clean, estimate)]
    means: dict[str, float] = {}
    for name in metrics_list:
        if name not in METRICS:
            raise RunError(f"metrics_list has {name!r}, allowed: {', '.join(METRICS)}")
        for key, signals in ((f"input_{name}", np.broadcast_to(mix, clean.shape)), (name, estimate)):
            values = [_measure(name, *pair, sample_rate) for pair in zip(clean, signals, strict=True)]
            means[key] = float(np.mean(values))
    return means


def si_sdr(source: np.ndarray, estimate: np.ndarray) -> float:
    """Return the scale-invariant signal-to-distortion ratio, (T,), (T,) -> dB (arXiv 1811.02508, eq. 4)."""
    source, estimate = source - source.mean(), estimate - estimate.mean()
    target = source * (np.sum(source * estimate) / (np.sum(source**2) + EPS))
    ratio = np.sum(target**2) / (np.sum((estimate - target) ** 2) + EPS)
    return float(10 * np.log10(ratio + EPS))


def order(sources: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Return the index of the estimate of each source, chosen by the largest mean interference ratio.

    This is BSS Eval's choice (Vincent et al., 2006): an estimate is projected onto the subspace of
    512-tap filterings of one source and onto that of all sources; the difference is interference.

    Args:
        sources: (K, T).
        estimates: (K, T); a silent one is equally far from every source.

    Returns:
        Indices of the estimates (K,).
    """
    ratios = interference_ratios(sources, estimates)
    index = np.arange(len(sources))
    return np.array(max(permutations(index), key=lambda candidate: ratios[list(candidate), index].sum()))


def interference_ratios(sources: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Return the source-to-interference ratios in dB, (K, T), (K, T) -> (estimates K, sources K)."""
    count, samples = sources.shape
    size = 1 << (samples + FILTER - 1).bit_length()
    spectra = np.fft.rfft(sources.astype(np.float64), size)
    estimate_spectra = np.fft.rfft(estimates.astype(np.float64), size)
    lags = np.arange(FILTER)
    gram = np.empty((count, FILTER, count, FILTER))  # inner products of the delayed sources
    for i in range(count):
        for j in range(count):
            products = np.fft.irfft(spectra[i] * spectra[j].conj(), size)
            gram[i, :, j] = products[(lags[None] - lags[:, None]) % size]
    cross = np.fft.irfft(spectra[:, None] * estimate_spectra.conj()[None], size)[
        ..., -lags % size
    ]  # (K, K, taps)
    whole = cross.transpose(0, 2, 1).reshape(count * FILTER, count)
    joint = _projected_energy(gram.reshape(count * FILTER, -1), whole)
    single = np.stack([_projected_energy(gram[i, :, i], cross[i].T) for i in range(count)])
    interference = np.maximum(joint - single, np.finfo(float).tiny)
    return 10 * np.log10(np.maximum(single, np.finfo(float).tiny) / interference).T


def _projected_energy(gram: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Return the energy of the projections, p' G^-1 p of each column p of (n, K)."""
    import scipy.linalg

    try:
        weights = scipy.linalg.solve(gram, products, assume_a="pos", check_finite=False)
    except np.linalg.LinAlgError:  # a silent source, or two equal sources
        weights = np.linalg.lstsq(gram, products, rcond=None)[0]
    return np.einsum("nk,nk->k", products, weights)


def _measure(name: str, source: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Return one metric of one estimate."""
    if name == "si_sdr":
        return si_sdr(source, estimate)
    try:
        if name == "stoi":
            from pystoi import stoi

            return float(stoi(source, estimate, rate))
        from pesq import PesqError, pesq
    except ImportError as error:
        hint = "; pesq is compiled while it is installed, which takes a C compiler such as gcc"
        raise RunError(f"{name} needs a package: pip install pystoi pesq{hint} ({error})") from error
    if rate not in PESQ_MODES:
        raise RunError(f"sample_rate is {rate}, allowed for pesq: {', '.join(map(str, PESQ_MODES))}")
    if not estimate.any():
        return PESQ_OF_SILENCE
    try:
        return float(pesq(rate, source, estimate, PESQ_MODES[rate]))
    except PesqError as error:
        raise RunError(f"pesq cannot score {len(source)} samples: {error}") from error


class PITLossWrapper(torch.nn.Module):
    """Permutation-invariant loss: that of the assignment of estimates to targets with the least loss.

    Args:
        loss_func: maps estimates and targets (B, K, T) to the loss of every pair (B, K, K).
        pit_from: ``pw_mtx``, for such a pairwise loss.

    Raises:
        RunError: ``pit_from`` is anything else.
    """

    def __init__(self, loss_func: Callable[..., torch.Tensor], pit_from: str = "pw_mtx") -> None:
        super().__init__()
        if pit_from != "pw_mtx":
            raise RunError(f"pit_from is {pit_from!r}, allowed: pw_mtx")
        self.loss_func = loss_func

    def forward(self, estimates: torch.Tensor, targets: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Return the mean loss over the batch, (B, K, T), (B, K, T) -> ()."""
        pairs = self.loss_func(estimates, targets, **kwargs)
        index = range(pairs.shape[-1])
        losses = [pairs[:, list(index), list(assigned)].mean(-1) for assigned in permutations(index)]
        return torch.stack(losses).amin(0).mean()
