"""Linear discriminant analysis from sums over samples, in closed form.

The within-class covariance S is shrunk towards its diagonal, (1 - s) S + s diag S (Schäfer and Strimmer,
2005, target D), which dimensions of different sizes leave as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHRINKAGES = (0.001, 0.01, 0.1, 0.3)
_RIDGE = 1e-6  # added to the variance of a dimension, relative to it; covers rounding
_FLOOR = 1e-8  # the same relative to the mean over dimensions, for those that are constant


@dataclass(frozen=True)
class ClassMoments:
    """Sums over samples that determine a discriminant; those of two sets of samples add up.

    Attributes:
        counts: (C,) samples of each class.
        sums: (C, D) their sums.
        gram: (D, D) sum of the outer products of all samples.
    """

    counts: Tensor
    sums: Tensor
    gram: Tensor

    @classmethod
    def of(cls, x: Tensor, labels: Tensor, classes: int) -> ClassMoments:
        """Sum samples (N, D) with labels (N,); ``x`` should have a mean near 0."""
        sums = torch.zeros(classes, x.shape[1]).index_add_(0, labels, x)
        return cls(torch.bincount(labels, minlength=classes).double(), sums.double(), (x.T @ x).double())

    def __add__(self, other: ClassMoments) -> ClassMoments:
        return ClassMoments(self.counts + other.counts, self.sums + other.sums, self.gram + other.gram)

    @property
    def means(self) -> Tensor:
        """Mean of each class (C, D), 0 for a class without samples."""
        return self.sums / self.counts.clamp(min=1)[:, None]

    def within(self, shrinkage: float) -> Tensor:
        """Return the shrunk covariance within classes (D, D)."""
        freedom = (self.counts.sum() - (self.counts > 0).sum()).clamp(min=1)
        covariance = (self.gram - self.means.T @ self.sums) / freedom
        diagonal = covariance.diagonal().clamp(min=0)
        diagonal = diagonal + _FLOOR * diagonal.mean().clamp(min=1e-12)
        return (1 - shrinkage) * covariance + torch.diag((shrinkage + _RIDGE) * diagonal)


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier.

    Attributes:
        weight: (D, C).
        bias: (C,), minus infinity for a class without samples.
    """

    weight: Tensor
    bias: Tensor

    def predict(self, x: Tensor) -> Tensor:
        """Return the most probable class (N,) of samples (N, D)."""
        return (x @ self.weight + self.bias).argmax(1)


def discriminant(moments: ClassMoments, shrinkage: float) -> LinearHead:
    """Return the classifier of Gaussian classes with a shared covariance and the classes' frequencies."""
    factor = torch.linalg.cholesky(moments.within(shrinkage))
    centre = moments.sums.sum(0) / moments.counts.sum()
    deviations = torch.where((moments.counts > 0)[:, None], moments.means - centre, 0.0)
    weight = torch.cholesky_solve(deviations.T, factor)
    bias = (moments.counts / moments.counts.sum()).log() - ((deviations / 2 + centre).T * weight).sum(0)
    return LinearHead(weight.float(), bias.float())


def projection(moments: ClassMoments, shrinkage: float) -> Tensor:
    """Return directions (D, C - 1 or fewer) that best separate the classes, white within classes.

    Fisher's criterion: principal directions of the class means, which count alike however frequent
    the classes are, in coordinates in which the covariance within classes is the identity.
    """
    factor = torch.linalg.cholesky(moments.within(shrinkage))
    means = moments.means[moments.counts > 0]
    white = torch.linalg.solve_triangular(factor, (means - means.mean(0)).T, upper=False)  # (D, C)
    directions, _, _ = torch.linalg.svd(white, full_matrices=False)
    rank = min(len(means) - 1, directions.shape[1])
    return torch.linalg.solve_triangular(factor.T, directions[:, :rank], upper=True).float()
