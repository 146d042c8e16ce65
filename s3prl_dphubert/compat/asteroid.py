"""What s3prl's enhancement and separation take from asteroid: metrics, and a loss over permutations.

asteroid is no longer kept up and wants an old torchmetrics and pytorch-lightning beside it; what it adds
to pystoi and pesq is a few formulas. These are theirs, and give its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunError

if TYPE_CHECKING:
    import torch

EPS = 1e-8
FILTER = 512  # taps by which BSS Eval lets an estimate differ from its source
METRICS = ("si_sdr", "stoi", "pesq")
PESQ_OF_SILENCE = 1.0  # the worst there is; the package fails on it
PESQ_MODES = {8000: "nb", 16_000: "wb"}


def get_metrics(
    mix: np.ndarray,
    clean: np.ndarray,
    estimate: np.ndarray,
    sample_rate: int = 16_000,
    metrics_list: Sequence[str] = METRICS,
    compute_permutation: bool = False,
) -> dict[str, float]:
    """Means over the sources of the metrics of the estimates, and of the mixture as ``input_NAME``.

    Args:
        mix: mixture (1, T).
        clean: sources (K, T).
        estimate: of each source (K, T).
        sample_rate: in Hz.
        metrics_list: ``si_sdr`` in dB, ``stoi`` 0 to 1, ``pesq`` as MOS-LQO (P.862.2 at 16 kHz).
        compute_permutation: whether the estimates are in no order; BSS Eval then tells which is which.

    Raises:
        RunError: a metric is not known, its package is missing, or PESQ hears no speech.
    """
    if compute_permutation:
        estimate = estimate[order(clean, estimate)]
    found: dict[str, float] = {}
    for name in metrics_list:
        if name not in METRICS:
            raise RunError(f"metrics_list has {name!r}, allowed: {', '.join(METRICS)}")
        for key, heard in ((f"input_{name}", np.broadcast_to(mix, clean.shape)), (name, estimate)):
            values = [_measure(name, *pair, sample_rate) for pair in zip(clean, heard, strict=True)]
            found[key] = float(np.mean(values))
    return found


def si_sdr(source: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio (T,), (T,) -> dB (equation 4 of 1811.02508)."""
    source, estimate = source - source.mean(), estimate - estimate.mean()
    target = source * (np.sum(source * estimate) / (np.sum(source**2) + EPS))
    ratio = np.sum(target**2) / (np.sum((estimate - target) ** 2) + EPS)
    return float(10 * np.log10(ratio + EPS))


def order(sources: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Which estimate belongs to each source: the largest mean source-to-interference ratio.

    That is BSS Eval's choice (Vincent et al., 2006): an estimate is projected on what a filter of 512
    taps makes of one source, and of all; what only the others explain is interference.

    Args:
        sources: (K, T).
        estimates: (K, T); a silent one is as far from every source.

    Returns:
        indices of the estimates (K,).
    """
    ratios = interference_ratios(sources, estimates)
    count = np.arange(len(sources))
    return np.array(max(permutations(count), key=lambda chosen: ratios[list(chosen), count].sum()))


def interference_ratios(sources: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """SIR of each estimate for each source, (K, T), (K, T) -> (K, K) in dB."""
    count, samples = sources.shape
    size = 1 << (samples + FILTER - 1).bit_length()
    spectra = np.fft.rfft(sources.astype(np.float64), size)
    heard = np.fft.rfft(estimates.astype(np.float64), size)
    lags = np.arange(FILTER)
    gram = np.empty((count, FILTER, count, FILTER))  # of the delayed sources
    for one in range(count):
        for other in range(count):
            products = np.fft.irfft(spectra[one] * spectra[other].conj(), size)
            gram[one, :, other] = products[(lags[None] - lags[:, None]) % size]
    cross = np.fft.irfft(spectra[:, None] * heard.conj()[None], size)[..., -lags % size]  # (K, K, taps)
    whole = cross.transpose(0, 2, 1).reshape(count * FILTER, count)
    every = _explained(gram.reshape(count * FILTER, -1), whole)
    alone = np.stack([_explained(gram[one, :, one], cross[one].T) for one in range(count)])
    rest = np.maximum(every - alone, np.finfo(float).tiny)
    return 10 * np.log10(np.maximum(alone, np.finfo(float).tiny) / rest).T


def _explained(gram: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Energy of the projections: p' G^-1 p of each column of (n, K)."""
    import scipy.linalg

    try:
        weights = scipy.linalg.solve(gram, products, assume_a="pos", check_finite=False)
    except np.linalg.LinAlgError:  # a silent source, or twice the same
        weights = np.linalg.lstsq(gram, products, rcond=None)[0]
    return np.einsum("nk,nk->k", products, weights)


def _measure(name: str, source: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """One metric of one estimate."""
    if name == "si_sdr":
        return si_sdr(source, estimate)
    try:
        if name == "stoi":
            from pystoi import stoi

            return float(stoi(source, estimate, rate))
        from pesq import PesqError, pesq
    except ImportError as error:
        hint = "; pesq is compiled while it is installed, by gcc or another C compiler"
        raise RunError(f"{name} needs a package: pip install pystoi pesq{hint} ({error})") from error
    if rate not in PESQ_MODES:
        raise RunError(f"sample_rate is {rate}, allowed for pesq: {', '.join(map(str, PESQ_MODES))}")
    if not estimate.any():
        return PESQ_OF_SILENCE
    try:
        return float(pesq(rate, source, estimate, PESQ_MODES[rate]))
    except PesqError as error:
        raise RunError(f"pesq cannot score {len(source)} samples: {error}") from error


def permutation_loss() -> type:
    """The class ``PITLossWrapper``; made when it is asked for, since it is torch's."""
    import torch

    class PITLossWrapper(torch.nn.Module):
        """The loss under the order of the estimates that fits best.

        Args:
            loss_func: takes estimates and targets (B, K, T) and returns the loss of every pair (B, K, K).
            pit_from: ``pw_mtx``, which says so.

        Raises:
            RunError: ``pit_from`` is another.
        """

        def __init__(self, loss_func: Callable[..., torch.Tensor], pit_from: str = "pw_mtx") -> None:
            super().__init__()
            if pit_from != "pw_mtx":
                raise RunError(f"pit_from is {pit_from!r}, allowed: pw_mtx")
            self.loss_func = loss_func

        def forward(self, estimates: torch.Tensor, targets: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            """(B, K, T), (B, K, T) -> mean over the batch of the least mean loss of an order."""
            pairs = self.loss_func(estimates, targets, **kwargs)
            count = range(pairs.shape[-1])
            orders = [pairs[:, list(count), list(chosen)].mean(-1) for chosen in permutations(count)]
            return torch.stack(orders).amin(0).mean()

    return PITLossWrapper
