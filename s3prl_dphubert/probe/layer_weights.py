"""Softmax weights of layers as in SUPERB, learnt with a linear classifier on the weighted sum to convergence.

SUPERB (Yang et al., Interspeech 2021) trains both by stochastic gradients, so that the weights depend on
learning rate and number of steps. Here the classifier is always the best one for the weights, in closed
form. What is left is a function of the weights alone (variable projection, Golub and Pereyra 1973), which
L-BFGS maximises from equal weights. For least squares on class indicators it is tr(T⁻¹B) / (C - 1), the
share of variance between classes, with the covariances T of all samples and B of the class means, whatever
the scale of the sum. Both are sums over pairs of layers, so the samples are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .discriminant import ClassMoments
from .pooled_states import PooledStates

WIDEST = 8192
"""Length of all layers together, above which they are projected onto common principal components."""
STEPS = 200
_LEAST = 1e-4  # weight to begin with: the softmax is flat near 0
GRADIENT, CHANGE = 1e-6, 1e-9


@dataclass(frozen=True)
class LayerBasis:
    """Coordinates in which layers are summed: centred, each divided by its standard deviation.

    Attributes:
        means: (L + 1, D).
        scales: (L + 1,).
        directions: (D, d) common to all layers, or ``None`` if they are narrow enough.
    """

    means: Tensor
    scales: Tensor
    directions: Tensor | None = None

    @classmethod
    def of(cls, states: PooledStates, rows: np.ndarray) -> LayerBasis:
        """Return the basis of some samples (n,)."""
        width = WIDEST // states.layers
        covariance = torch.zeros(states.width, states.width) if states.width > width else None
        means, scales = [], []
        for index in range(states.layers):
            x = states.layer(index, rows)
            means.append(x.mean(0))
            scales.append(x.std(0, correction=0).square().mean().sqrt().clamp(min=1e-6))
            if covariance is not None:
                centred = (x - means[-1]) / scales[-1]
                covariance += centred.T @ centred
        directions = None if covariance is None else torch.linalg.eigh(covariance)[1][:, -width:]
        return cls(torch.stack(means), torch.stack(scales), directions)

    def apply(self, block: Tensor) -> Tensor:
        """Return a block (L + 1, n, D) in these coordinates, (L + 1, n, d)."""
        scaled = (block - self.means[:, None]) / self.scales[:, None, None]
        return scaled if self.directions is None else scaled @ self.directions

    def mix(self, states: PooledStates, rows: np.ndarray, weights: Tensor) -> Tensor:
        """Return the weighted sums of the layers (n, d) of samples (n,)."""
        shares = weights.float()
        return torch.cat([torch.einsum("l,lnd->nd", shares, self.apply(x)) for x in states.blocks(rows)])


@dataclass(frozen=True)
class LayerMoments:
    """Sums over samples from which the :class:`.ClassMoments` of every weighted sum of layers follow.

    Attributes:
        counts: (C,) samples of each class.
        sums: (C, L + 1, d) their sums.
        gram: (L + 1, d, L + 1, d) sum of the outer products of all samples.
    """

    counts: Tensor
    sums: Tensor
    gram: Tensor

    @classmethod
    def of(
        cls, states: PooledStates, basis: LayerBasis, rows: np.ndarray, labels: np.ndarray, classes: int
    ) -> LayerMoments:
        """Sum samples (n,) with labels (n,), block by block."""
        ids = torch.from_numpy(labels)
        sums: Tensor | None = None
        gram: Tensor | None = None
        start = 0
        for block in states.blocks(rows):
            x = basis.apply(block)
            layers, count, width = x.shape
            flat = x.transpose(0, 1).reshape(count, layers * width)
            if sums is None or gram is None:
                sums = torch.zeros(classes, layers * width)
                gram = torch.zeros(layers * width, layers * width)
            sums.index_add_(0, ids[start : start + count], flat)
            gram.addmm_(flat.T, flat)
            start += count
        if sums is None or gram is None:
            raise ValueError("rows are empty, allowed: at least one sample")
        counts = torch.bincount(ids, minlength=classes).double()
        return cls(counts, sums.view(classes, layers, width), gram.view(layers, width, layers, width))

    def __add__(self, other: LayerMoments) -> LayerMoments:
        return LayerMoments(self.counts + other.counts, self.sums + other.sums, self.gram + other.gram)

    def mixed(self, weights: Tensor) -> ClassMoments:
        """Return the moments of the sum of the layers by ``weights`` (L + 1,), differentiable in them."""
        shares = weights.float()
        gram = torch.einsum("m,dme->de", shares, torch.einsum("l,ldme->dme", shares, self.gram))
        sums = torch.einsum("l,cld->cd", shares, self.sums)
        return ClassMoments(self.counts, sums.double(), gram.double())


@dataclass(frozen=True)
class LearntWeights:
    """Layer weights after L-BFGS.

    Attributes:
        weights: (L + 1,), which sum to 1.
        separation: share of variance between classes.
        steps: of L-BFGS.
        converged: whether it ended before the limit of steps.
    """

    weights: Tensor
    separation: float
    steps: int
    converged: bool


def learn_all(moments: LayerMoments, shrinkages: Sequence[float]) -> list[LearntWeights]:
    """Learn the weights for several shrinkages, each from the solution of the one before."""
    learnt: list[LearntWeights] = []
    for shrinkage in shrinkages:
        learnt.append(learn(moments, shrinkage, learnt[-1].weights if learnt else None))
    return learnt


def learn(moments: LayerMoments, shrinkage: float, start: Tensor | None = None) -> LearntWeights:
    """Maximise the separation of the classes over the layer weights.

    Args:
        moments: of the training samples.
        shrinkage: of the covariance towards its diagonal.
        start: weights (L + 1,) to begin with, by default equal ones.
    """
    layers = moments.sums.shape[1]
    logits = torch.zeros(layers) if start is None else start.clamp(min=_LEAST).log()
    logits = (logits.double() - logits.double().mean()).requires_grad_()
    if layers == 1:
        return LearntWeights(
            torch.ones(1), float(separation(moments.mixed(torch.ones(1)), shrinkage)), 0, True
        )
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=STEPS,
        max_eval=2 * STEPS,
        tolerance_grad=GRADIENT,
        tolerance_change=CHANGE,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -separation(moments.mixed(logits.softmax(0)), shrinkage)
        loss.backward()
        return loss

    optimizer.step(closure)
    steps = optimizer.state[logits]["n_iter"]
    weights = logits.detach().softmax(0)
    return LearntWeights(weights, float(separation(moments.mixed(weights), shrinkage)), steps, steps < STEPS)


def separation(moments: ClassMoments, shrinkage: float) -> Tensor:
    """Return tr(T⁻¹B) / (C - 1), Pillai's trace over its largest value, with a shrunk T."""
    present = moments.counts > 0
    counts = moments.counts[present]
    count = counts.sum()
    centre = moments.sums.sum(0) / count
    deviations = (moments.sums[present] / counts[:, None] - centre) * (counts / count).sqrt()[:, None]
    total = moments.gram / count - torch.outer(centre, centre)
    diagonal = total.diagonal()
    shrunk = (1 - shrinkage) * total + torch.diag(shrinkage * diagonal + 1e-6 * diagonal.mean())
    factor = torch.linalg.cholesky(shrunk)
    white = torch.linalg.solve_triangular(factor, deviations.T, upper=False)
    return white.square().sum() / (len(counts) - 1)
