"""Equal error rate of speaker verification, kept apart by pairs of voices so that voices can be resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ResultError

BINS = 200


@dataclass(frozen=True)
class VerificationTrials:
    """Trials by pair of voices, counted between thresholds.

    A draw of voices (weights w) counts the trials of voices a and b w_a w_b times, and those within voice a
    w_a times; two copies of a voice are no different voices. The pairs may come from several panels with
    thresholds of their own, whose rates are averaged by their number of trials.

    Args:
        groups: names of the G voices.
        pairs: (P, 2) indices of the two voices of each pair, equal for trials of one voice.
        panels: (P,) number of the panel of each pair.
        counts: (P, K) trials with scores in each of the K intervals between thresholds, from low to high.

    Raises:
        ResultError: the shapes do not fit, or a panel lacks trials of one kind.
    """

    groups: tuple[str, ...]
    pairs: np.ndarray
    panels: np.ndarray
    counts: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.pairs)
        if self.pairs.shape != (count, 2) or self.counts.shape[:1] != (count,) or len(self.panels) != count:
            raise ResultError(
                f"trials: pairs have shape {self.pairs.shape}, counts {self.counts.shape} and panels "
                f"{self.panels.shape}, allowed: (P, 2), (P, K) and (P,)"
            )
        for panel in np.unique(self.panels):
            same = self._same & (self.panels == panel)
            different = ~self._same & (self.panels == panel)
            if not self.counts[same].sum() or not self.counts[different].sum():
                raise ResultError(
                    f"trials of panel {panel}: no equal error rate without same and different voices"
                )

    @classmethod
    def of_scores(
        cls, panels: Sequence[tuple[np.ndarray, Sequence[str]]], bins: int = BINS
    ) -> VerificationTrials:
        """Count all pairs of utterances of each panel.

        Args:
            panels: for each, the scores (N, N) of its N utterances with each other, and their voices. A voice
                belongs to one panel.
            bins: number of intervals; thresholds are the quantiles of the scores of one voice and of
                different voices in equal parts, so that an interval holds about 2 / bins of each.
        """
        groups = tuple(sorted({voice for _, voices in panels for voice in voices}))
        index = {voice: number for number, voice in enumerate(groups)}
        counted, numbers = [], []
        for number, (scores, voices) in enumerate(panels):
            ids = np.array([index[voice] for voice in voices])
            rows, columns = np.triu_indices(len(ids), 1)
            counted.append(_count(scores[rows, columns], np.stack([ids[rows], ids[columns]], 1), bins))
            numbers += [number] * len(counted[-1][0])
        pairs, counts = (np.concatenate(each) for each in zip(*counted, strict=True))
        return cls(groups, pairs, np.array(numbers), counts)

    @classmethod
    def of_trials(
        cls, scores: np.ndarray, voices: Sequence[tuple[str, str]], bins: int = BINS
    ) -> VerificationTrials:
        """Count given trials as one panel.

        Args:
            scores: (N,) of the trials.
            voices: the two voices of each.
            bins: as for :meth:`of_scores`.
        """
        groups = tuple(sorted({voice for pair in voices for voice in pair}))
        index = {voice: number for number, voice in enumerate(groups)}
        ids = np.array([[index[first], index[second]] for first, second in voices]).reshape(-1, 2)
        pairs, counts = _count(scores, ids, bins)
        return cls(groups, pairs, np.zeros(len(pairs), int), counts)

    @property
    def _same(self) -> np.ndarray:
        return self.pairs[:, 0] == self.pairs[:, 1]

    @property
    def total(self) -> int:
        """Number of trials."""
        return int(self.counts.sum())

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Return the equal error rate in percent (R,) for each row of weights (R, G); NaN where undefined."""
        pair_weights = np.where(self._same, 1.0, weights[:, self.pairs[:, 1]]) * weights[:, self.pairs[:, 0]]
        rates, sizes = [], []
        for panel in np.unique(self.panels):
            mine = self.panels == panel
            same, different = (
                pair_weights[:, kind & mine] @ self.counts[kind & mine] for kind in (self._same, ~self._same)
            )
            rates.append(_crossing(same, different))
            sizes.append(same.sum(1) + different.sum(1))
        shares = np.array(sizes) / np.sum(sizes, axis=0)
        return 100 * np.sum(np.array(rates) * shares, axis=0)


def _count(scores: np.ndarray, ids: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of voices (P, 2), and the trials of each in every interval of scores (P, K).

    Args:
        scores: (N,) of the trials.
        ids: (N, 2) their voices.
        bins: number of intervals.
    """
    pairs, code = np.unique(np.sort(ids, axis=1), axis=0, return_inverse=True)
    same = ids[:, 0] == ids[:, 1]
    if same.all() or not same.any():
        raise ResultError("trials: no equal error rate without same and different voices")
    shares = np.linspace(0, 1, bins // 2 + 1)[1:-1]
    edges = np.sort(np.concatenate([np.quantile(scores[kind], shares) for kind in (same, ~same)]))
    counts = np.zeros((len(pairs), len(edges) + 1), int)
    np.add.at(counts, (code.reshape(-1), np.searchsorted(edges, scores, side="right")), 1)
    return pairs, counts


def _crossing(same: np.ndarray, different: np.ndarray) -> np.ndarray:
    """Return where misses and false alarms are equal, interpolated between thresholds.

    Args:
        same: (R, K) trials of one voice in each interval of scores, from low to high.
        different: the same of different voices.
    """
    with np.errstate(invalid="ignore"):
        misses = np.cumsum(same, axis=1) / same.sum(1, keepdims=True)
        alarms = 1 - np.cumsum(different, axis=1) / different.sum(1, keepdims=True)
    start = np.zeros((len(same), 1))
    misses, alarms = np.concatenate([start, misses], 1), np.concatenate([start + 1, alarms], 1)
    gap = misses - alarms  # rises from -1 to 1
    after = np.argmax(gap >= 0, axis=1)
    rows, before = np.arange(len(gap)), np.maximum(after - 1, 0)
    step = gap[rows, after] - gap[rows, before]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(step > 0, -gap[rows, before] / step, 0.0)
    rate = misses[rows, before] + share * (misses[rows, after] - misses[rows, before])
    return np.where(np.isnan(gap).any(1), np.nan, rate)


def equal_error_rate(scores: np.ndarray, same: np.ndarray) -> float:
    """Return the equal error rate in percent.

    Args:
        scores: (N,) of the trials.
        same: (N,) whether a trial is of one voice.
    """
    ordered = same[np.argsort(scores, kind="stable")].astype(float)[None]
    return float(100 * _crossing(ordered, 1 - ordered)[0])
