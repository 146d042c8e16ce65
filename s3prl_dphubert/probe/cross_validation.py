"""Classification probes, cross-validated over the voices that the models never heard, under two heads."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch

from ..errors import DataError
from ..superb.scoring.uncertainty import Ratio
from .aligned_corpus import TRAIN, AlignedCorpus
from .discriminant import SHRINKAGES, ClassMoments, LinearHead, discriminant
from .layer_weights import LayerBasis, LayerMoments, LearntWeights, learn_all
from .pooled_states import PooledStates
from .probe_samples import SPEAKERS, ProbeSamples

FOLDS = 4
ALWAYS = -1  # part of the samples that are in the training of every fold


@dataclass(frozen=True)
class Partition:
    """Samples in parts, of which each is tested once.

    Attributes:
        parts: (N,) number of the part, or :data:`ALWAYS`.
        count: number of parts.
    """

    parts: np.ndarray
    count: int

    @classmethod
    def of(cls, probe: ProbeSamples, corpus: AlignedCorpus) -> Partition:
        """Deal out the voices that models never heard; to identify speakers, their utterances.

        Raises:
            DataError: samples of fewer than two voices, or utterances, lie outside ``train``.
        """
        names = probe.voices(corpus)
        sizes = _unheard(names, corpus)
        if len(sizes) < 2:
            raise DataError(
                f"{corpus.name}: {len(sizes)} voices outside split {TRAIN} have {probe.name}, "
                "allowed: 2 or more"
            )
        if probe.name == SPEAKERS:
            count, least = min(FOLDS, max(sizes.values())), 2 if len(set(names)) > len(sizes) else 3
            if count < least:
                raise DataError(
                    f"{corpus.name}: voices outside split {TRAIN} have {count} utterances at most, "
                    f"allowed: {least} or more"
                )
            return cls(_by_utterance(probe, corpus, names, count), count)
        return cls.by_voice(names, corpus, min(FOLDS, len(sizes)))

    @classmethod
    def by_voice(cls, names: np.ndarray, corpus: AlignedCorpus, count: int) -> Partition:
        """Deal the voices that models never heard into ``count`` parts of similar size.

        Args:
            names: (N,) name of the voice of each sample.
            corpus: the recordings.
            count: number of parts.
        """
        parts = deal(_unheard(names, corpus), count)
        return cls(np.array([parts.get(name, ALWAYS) for name in names]), count)

    def folds(self) -> Iterator[Fold]:
        """Yield the folds: one part to test, the next to choose by, all others to train."""
        for number in range(self.count):
            dev = (number + 1) % self.count
            train = [part for part in range(ALWAYS, self.count) if part not in (number, dev)]
            yield Fold(number, dev, tuple(train))

    def rows(self, *numbers: int) -> np.ndarray:
        """Return the samples of some parts (n,)."""
        return np.flatnonzero(np.isin(self.parts, numbers))


@dataclass(frozen=True)
class Fold:
    """Numbers of the parts that serve each purpose."""

    test: int
    dev: int
    train: tuple[int, ...]


def deal(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Deal names into ``count`` parts of similar size: by falling size, there and back again."""
    order = sorted(sizes, key=lambda name: (-sizes[name], name))
    return {name: min(i % (2 * count), 2 * count - 1 - i % (2 * count)) for i, name in enumerate(order)}


def _unheard(names: np.ndarray, corpus: AlignedCorpus) -> Counter[str]:
    """Count the samples of each voice that models never heard."""
    return Counter(names[np.isin(names, corpus.unheard)].tolist())


def _by_utterance(probe: ProbeSamples, corpus: AlignedCorpus, names: np.ndarray, count: int) -> np.ndarray:
    parts = np.full(len(probe), ALWAYS)
    files = [corpus.utterances[number].path.name for number in probe.utterances]
    for speaker in corpus.unheard:
        own = sorted(
            np.flatnonzero(names == speaker), key=lambda row: hashlib.sha256(files[row].encode()).digest()
        )
        parts[own] = np.arange(len(own)) % count
    return parts


@dataclass(frozen=True)
class HeadResult:
    """Accuracy of a probe under a head, with what was chosen on the development part of each fold.

    Attributes:
        accuracy: in percent, by voice.
        choices: name -> value in each fold.
        weights: layer weights (L + 1), mean over the folds; none for a single layer.
    """

    accuracy: Ratio
    choices: dict[str, list]
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class ClassificationProbe:
    """A probe with its samples in parts."""

    probe: ProbeSamples
    corpus: AlignedCorpus
    partition: Partition

    @classmethod
    def of(cls, probe: ProbeSamples, corpus: AlignedCorpus) -> ClassificationProbe:
        """Deal the samples of a probe out.

        Raises:
            DataError: fewer than two voices lie outside ``train``.
        """
        return cls(probe, corpus, Partition.of(probe, corpus))

    def chance(self) -> float:
        """Return the accuracy in percent of guessing the most frequent class, or for speakers any of them."""
        if self.probe.name == SPEAKERS:
            return 100 / len(self.probe.classes)
        correct = np.zeros(len(self.probe), bool)
        for fold in self.partition.folds():
            frequent = np.bincount(self.probe.labels[self.partition.rows(*fold.train)]).argmax()
            tested = self.partition.rows(fold.test)
            correct[tested] = self.probe.labels[tested] == frequent
        return float(100 * correct[self.partition.parts != ALWAYS].mean())

    def by_layer(self, states: PooledStates) -> tuple[HeadResult, list[Ratio]]:
        """Classify by a discriminant on one layer, layer and shrinkage chosen on the development part.

        Returns:
            The result on the chosen layers, and the accuracy of each layer, its shrinkage chosen alike.
        """
        folds, classes = list(self.partition.folds()), len(self.probe.classes)
        labels = torch.from_numpy(self.probe.labels)
        everything = np.arange(len(self.probe))
        correct = np.zeros((states.layers, len(self.probe)), bool)
        on_dev = np.zeros((len(folds), states.layers))
        shrinkages = np.zeros((len(folds), states.layers))
        for layer in range(states.layers):
            x = _standardised(states.layer(layer, everything))
            moments = {
                part: ClassMoments.of(x[rows], labels[rows], classes)
                for part in range(ALWAYS, self.partition.count)
                if len(rows := self.partition.rows(part))
            }
            for number, fold in enumerate(folds):
                total = reduce(add, (moments[part] for part in fold.train if part in moments))
                dev, test = self.partition.rows(fold.dev), self.partition.rows(fold.test)
                heads = [discriminant(total, shrinkage) for shrinkage in SHRINKAGES]
                scores = [_accuracy(head, x[dev], labels[dev]) for head in heads]
                chosen = int(np.argmax(scores))
                on_dev[number, layer], shrinkages[number, layer] = scores[chosen], SHRINKAGES[chosen]
                correct[layer, test] = (heads[chosen].predict(x[test]) == labels[test]).numpy()
        best = on_dev.argmax(1)
        chosen_correct = np.zeros(len(self.probe), bool)
        for number, fold in enumerate(folds):
            test = self.partition.rows(fold.test)
            chosen_correct[test] = correct[best[number], test]
        choices = {
            "layer": best.tolist(),
            "shrinkage": [float(shrinkages[number, layer]) for number, layer in enumerate(best)],
        }
        return HeadResult(self._ratio(chosen_correct), choices), [self._ratio(row) for row in correct]

    def by_weights(self, states: PooledStates) -> HeadResult:
        """Classify by a discriminant on a weighted sum of layers, the shrinkage chosen as before."""
        labels, classes = self.probe.labels, len(self.probe.classes)
        always = self.partition.rows(ALWAYS)
        basis = LayerBasis.of(states, always if len(always) else np.arange(len(self.probe)))
        moments = {
            part: LayerMoments.of(states, basis, rows, labels[rows], classes)
            for part in range(ALWAYS, self.partition.count)
            if len(rows := self.partition.rows(part))
        }
        correct = np.zeros(len(self.probe), bool)
        learnt, shrinkages = [], []
        for fold in self.partition.folds():
            train = reduce(add, (moments[part] for part in fold.train if part in moments))
            dev, test = self.partition.rows(fold.dev), self.partition.rows(fold.test)
            tried = [
                (each, discriminant(train.mixed(each.weights), shrinkage))
                for each, shrinkage in zip(learn_all(train, SHRINKAGES), SHRINKAGES, strict=True)
            ]
            truth = torch.from_numpy(labels[dev])
            scores = [_accuracy(head, basis.mix(states, dev, each.weights), truth) for each, head in tried]
            chosen = int(np.argmax(scores))
            weights, head = tried[chosen]
            correct[test] = head.predict(basis.mix(states, test, weights.weights)).numpy() == labels[test]
            learnt.append(weights)
            shrinkages.append(SHRINKAGES[chosen])
        choices = {"shrinkage": shrinkages, **convergence(learnt)}
        return HeadResult(self._ratio(correct), choices, mean_weights(learnt))

    def _ratio(self, correct: np.ndarray) -> Ratio:
        tested = self.partition.parts != ALWAYS
        return Ratio.of_items(self.probe.voices(self.corpus)[tested], correct[tested])


def _standardised(x: torch.Tensor) -> torch.Tensor:
    """Shift and scale the dimensions of (N, D), to which a discriminant is indifferent but for rounding."""
    return (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-6)


def _accuracy(head: LinearHead, x: torch.Tensor, labels: torch.Tensor) -> float:
    return (head.predict(x) == labels).double().mean().item()


def mean_weights(learnt: Sequence[LearntWeights]) -> tuple[float, ...]:
    """Return the mean over folds of the layer weights (L + 1)."""
    return tuple(torch.stack([each.weights.double() for each in learnt]).mean(0).tolist())


def convergence(learnt: Sequence[LearntWeights]) -> dict[str, list]:
    """Return the steps of L-BFGS in each fold, and whether it converged."""
    return {"steps": [each.steps for each in learnt], "converged": [each.converged for each in learnt]}
