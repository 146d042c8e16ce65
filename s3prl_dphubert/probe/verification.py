"""Speaker verification: a discriminant learnt on voices that models were trained on, cosines of all pairs.

The voices that models never heard are dealt into two panels. Layer and shrinkage are chosen by the equal
error rate of one panel and tested on the other; the trials of a panel are all pairs of its utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..superb.metrics.eer import VerificationTrials, equal_error_rate
from .aligned_corpus import AlignedCorpus
from .cross_validation import ALWAYS, Partition, convergence, mean_weights
from .discriminant import SHRINKAGES, ClassMoments, projection
from .layer_weights import LayerBasis, LayerMoments, learn_all
from .pooled_states import PooledStates
from .probe_samples import ProbeSamples

PANELS = 2
LEAST_VOICES = 2  # of each panel, and of the voices to learn from


@dataclass(frozen=True)
class VerificationResult:
    """Trials under a head, with what was chosen on the other panel.

    Attributes:
        trials: counts by pair of voices.
        choices: name -> value for each panel.
        weights: layer weights (L + 1), mean over the panels; none for a single layer.
    """

    trials: VerificationTrials
    choices: dict[str, list]
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class VerificationProbe:
    """Utterances to learn from and panels to test.

    Attributes:
        train: (n,) samples of the voices that models were trained on.
        labels: (n,) numbers of their voices, without gaps.
        panels: samples of each panel.
        voices: (N,) name of the voice of every sample.
    """

    train: np.ndarray
    labels: np.ndarray
    panels: tuple[np.ndarray, ...]
    voices: np.ndarray

    @classmethod
    def of(cls, probe: ProbeSamples, corpus: AlignedCorpus) -> VerificationProbe | None:
        """Deal the voices out; ``None`` if there are too few to learn from or to test.

        Args:
            probe: the samples to identify speakers by.
            corpus: the recordings.
        """
        voices = probe.voices(corpus)
        partition = Partition.by_voice(voices, corpus, PANELS)
        panels, train = tuple(map(partition.rows, range(PANELS))), partition.rows(ALWAYS)
        if min(len(set(voices[rows])) for rows in (train, *panels)) < LEAST_VOICES:
            return None
        return cls(train, np.unique(voices[train], return_inverse=True)[1], panels, voices)

    def by_layer(self, states: PooledStates) -> tuple[VerificationResult, list[VerificationTrials]]:
        """Verify by one layer; returns the result on the chosen layers, and the trials of each layer."""
        rates = np.zeros((states.layers, len(SHRINKAGES), PANELS))
        scores: dict[tuple[int, int, int], np.ndarray] = {}
        for layer in range(states.layers):
            x = states.layer(layer, np.arange(len(self.voices)))
            x = (x - x[self.train].mean(0)) / x[self.train].std(0, correction=0).clamp(min=1e-6)
            moments = ClassMoments.of(x[self.train], torch.from_numpy(self.labels), self.labels.max() + 1)
            for number, shrinkage in enumerate(SHRINKAGES):
                directions = projection(moments, shrinkage)
                for panel, rows in enumerate(self.panels):
                    cosines = _cosines(x[rows] @ directions)
                    scores[layer, number, panel] = cosines
                    rates[layer, number, panel] = self._rate(cosines, panel)
        others = rates[:, :, ::-1]
        curve = [
            self._trials(
                [scores[layer, int(others[layer, :, panel].argmin()), panel] for panel in range(PANELS)]
            )
            for layer in range(states.layers)
        ]
        best = [np.unravel_index(others[:, :, panel].argmin(), rates.shape[:2]) for panel in range(PANELS)]
        chosen = self._trials([scores[int(a), int(b), panel] for panel, (a, b) in enumerate(best)])
        choices: dict[str, list] = {
            "layer": [int(a) for a, _ in best],
            "shrinkage": [SHRINKAGES[int(b)] for _, b in best],
        }
        return VerificationResult(chosen, choices), curve

    def by_weights(self, states: PooledStates) -> VerificationResult:
        """Verify by a weighted sum of layers, the weights learnt by telling the voices of ``train`` apart."""
        basis = LayerBasis.of(states, self.train)
        moments = LayerMoments.of(states, basis, self.train, self.labels, int(self.labels.max()) + 1)
        learnt = learn_all(moments, SHRINKAGES)
        scores = []
        for each, shrinkage in zip(learnt, SHRINKAGES, strict=True):
            directions = projection(moments.mixed(each.weights), shrinkage)
            scores.append(
                [_cosines(basis.mix(states, rows, each.weights) @ directions) for rows in self.panels]
            )
        rates = np.array(
            [[self._rate(cosines, panel) for panel, cosines in enumerate(row)] for row in scores]
        )
        best = rates[:, ::-1].argmin(0)
        chosen = [learnt[number] for number in best]
        choices = {"shrinkage": [SHRINKAGES[number] for number in best], **convergence(chosen)}
        trials = self._trials([scores[number][panel] for panel, number in enumerate(best)])
        return VerificationResult(trials, choices, mean_weights(chosen))

    def _trials(self, scores: Sequence[np.ndarray]) -> VerificationTrials:
        panels = zip(scores, self.panels, strict=True)
        return VerificationTrials.of_scores([(each, self.voices[rows].tolist()) for each, rows in panels])

    def _rate(self, cosines: np.ndarray, panel: int) -> float:
        voices = self.voices[self.panels[panel]]
        rows, columns = np.triu_indices(len(voices), 1)
        return equal_error_rate(cosines[rows, columns], voices[rows] == voices[columns])


def _cosines(vectors: Tensor) -> np.ndarray:
    """Return the cosines (N, N) of vectors (N, D)."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    return (unit @ unit.T).numpy()
