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
        pairs, numbers, counts = [], [], []
        for number, (scores, voices) in enumerate(panels):
            ids = np.array([index[voice] for voice in voices])
            rows, columns = np.triu_indices(len(ids), 1)
            values = scores[rows, columns]
            first, second = np.minimum(ids[rows], ids[columns]), np.maximum(ids[rows], ids[columns])
            same = first == second
            shares = np.linspace(0, 1, bins // 2 + 1)[1:-1]
            edges = np.sort(np.concatenate([np.quantile(values[kind], shares) for kind in (same, ~same)]))
            code = first * len(groups) + second
            interval = np.searchsorted(edges, values, side="right")
            for pair in np.unique(code):
                pairs.append((pair // len(groups), pair % len(groups)))
                numbers.append(number)
                counts.append(np.bincount(interval[code == pair], minlength=len(edges) + 1))
        return cls(groups, np.array(pairs), np.array(numbers), np.array(counts))

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
