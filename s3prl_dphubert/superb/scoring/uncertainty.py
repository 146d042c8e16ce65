"""Standard errors of scores and paired differences of models, by the bootstrap over voices.

Utterances of a voice resemble each other, so voices are drawn with replacement, not utterances, and two
models are scored on the same draws (Bisani and Ney, ICASSP 2004). With few voices G the spread over the
draws is too small by √((G - 1) / G) and a normal interval too narrow: the first is corrected, and the
interval uses Student's t with G - 1 degrees of freedom (Hesterberg, The American Statistician 69(4), 2015).

Where a recipe made several models, one for each seed, the variance over the seeds is added to that over the
voices, with Welch's and Satterthwaite's degrees of freedom for the sum (Biometrics Bulletin 2(6), 1946).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from ...errors import ResultError

DRAWS = 10_000
LEVEL = 0.95
HIGHER, LOWER, NO_CONCLUSION = "higher", "lower", "no conclusion"


class Statistic(Protocol):
    """A score on a test set, as a function of how often each of its groups counts."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, which are the voices as a rule."""

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Return the score (R,) for each row of weights (R, G); NaN where a draw leaves it undefined."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums over the test set, such as an accuracy or an error rate.

    Args:
        groups: names of the G groups.
        numerators: sum of each group, such as its correct words.
        denominators: sum of each group, such as its words.
        scale: factor, 100 for percent.

    Raises:
        ResultError: a group occurs twice, a denominator is not positive, or the lengths differ.
    """

    groups: tuple[str, ...]
    numerators: tuple[float, ...]
    denominators: tuple[float, ...]
    scale: float = 100.0

    def __post_init__(self) -> None:
        groups, different = len(self.groups), len(set(self.groups))
        if not groups == different == len(self.numerators) == len(self.denominators) or not groups:
            raise ResultError(
                f"groups are {groups} ({different} different), with {len(self.numerators)} numerators and "
                f"{len(self.denominators)} denominators; allowed: as many of each, at least one"
            )
        if empty := [name for name, each in zip(self.groups, self.denominators, strict=True) if not each > 0]:
            raise ResultError(f"denominator of group {empty[0]} is not positive")

    @classmethod
    def of_items(
        cls,
        groups: Iterable[str],
        numerators: Iterable[float],
        denominators: Iterable[float] | None = None,
        scale: float = 100.0,
    ) -> Ratio:
        """Sum items, such as utterances, over their groups; groups whose denominators sum to 0 are left out.

        Args:
            groups: group of each item.
            numerators: share of each item in the numerator.
            denominators: share of each in the denominator, by default 1.
            scale: factor, 100 for percent.
        """
        names = np.array(list(groups), dtype=object)
        tops = np.array(list(numerators), dtype=float)
        bottoms = np.ones(len(tops)) if denominators is None else np.array(list(denominators), dtype=float)
        if not len(names) == len(tops) == len(bottoms):
            raise ResultError(
                f"items have {len(names)} groups, {len(tops)} numerators and {len(bottoms)} denominators; "
                "allowed: as many of each"
            )
        order = sorted(name for name in set(names) if bottoms[names == name].sum() > 0)
        top, bottom = (tuple(float(each[names == name].sum()) for name in order) for each in (tops, bottoms))
        return cls(tuple(order), top, bottom, scale)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Return the ratio (R,) for each row of weights (R, G)."""
        return self.scale * (weights @ np.array(self.numerators)) / (weights @ np.array(self.denominators))


@dataclass(frozen=True)
class Estimate:
    """A score, or the difference of two, with its uncertainty over voices.

    Attributes:
        value: on the test set as it is.
        standard_error: infinite with a single group, which says nothing about others.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
    """

    value: float
    standard_error: float
    low: float
    high: float

    @property
    def conclusion(self) -> str:
        """``higher`` or ``lower`` if all of the interval is so, else ``no conclusion``: it holds 0."""
        if self.low > 0:
            return HIGHER
        return LOWER if self.high < 0 else NO_CONCLUSION


@dataclass(frozen=True)
class _Bootstrap:
    """Draws of G groups with replacement, the same for every statistic with that number of groups."""

    groups: int
    weights: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(0)
        shares = np.full(self.groups, 1 / self.groups)
        object.__setattr__(self, "weights", generator.multinomial(self.groups, shares, DRAWS).astype(float))

    def component(self, function: Callable[[np.ndarray], np.ndarray]) -> _Component:
        """Return the variance of a function of the weights over the draws."""
        if self.groups < 2:
            return _Component(math.inf, 1)
        values = function(self.weights)
        defined = values[~np.isnan(values)]
        variance = defined.var() * self.groups / (self.groups - 1) if len(defined) else math.inf
        return _Component(float(variance), self.groups - 1)

    @cached_property
    def all_once(self) -> np.ndarray:
        """Weights (1, G) of the test set as it is."""
        return np.ones((1, self.groups))


@dataclass(frozen=True)
class _Component:
    """A variance with its degrees of freedom."""

    variance: float
    freedom: int


def estimate(score: Statistic | Sequence[Statistic]) -> Estimate:
    """Return a score with its standard error and 95 % interval.

    Args:
        score: of one model; or of several that a recipe made with different seeds, whose mean is meant.

    Raises:
        ResultError: the models of a recipe were scored on different groups.
    """
    return _estimate(((1.0, _as_sequence(score)),))


def paired_difference(
    first: Statistic | Sequence[Statistic], second: Statistic | Sequence[Statistic]
) -> Estimate:
    """Return ``first`` minus ``second`` with its standard error and 95 % interval, on the same draws.

    Args:
        first: score of a model, or of several that a recipe made with different seeds, whose mean is meant.
        second: the same of the other model or recipe.

    Raises:
        ResultError: they were scored on different groups.
    """
    return _estimate(((1.0, _as_sequence(first)), (-1.0, _as_sequence(second))))


def _as_sequence(score: Statistic | Sequence[Statistic]) -> Sequence[Statistic]:
    return score if isinstance(score, Sequence) else (score,)


def _estimate(sides: Sequence[tuple[float, Sequence[Statistic]]]) -> Estimate:
    """Return the sum of the sides' means over seeds, each times its sign."""
    groups = _shared_groups([score for _, scores in sides for score in scores])

    def total(weights: np.ndarray) -> np.ndarray:
        return sum(
            (sign * np.mean([score(weights) for score in scores], axis=0) for sign, scores in sides),
            start=np.zeros(len(weights)),
        )

    bootstrap = _Bootstrap(len(groups))
    components = [bootstrap.component(total)]
    for _, scores in sides:
        if len(scores) > 1:
            values = [score(bootstrap.all_once)[0] for score in scores]
            components.append(_Component(float(np.var(values, ddof=1)) / len(scores), len(scores) - 1))
    value, variance = float(total(bootstrap.all_once)[0]), sum(each.variance for each in components)
    if not math.isfinite(variance):
        return Estimate(value, math.inf, -math.inf, math.inf)
    margin = _t_quantile(_freedom(components)) * math.sqrt(variance) if variance else 0.0
    return Estimate(value, math.sqrt(variance), value - margin, value + margin)


def _shared_groups(scores: Sequence[Statistic]) -> tuple[str, ...]:
    if not scores:
        raise ResultError("scores are none, allowed: at least one of each side")
    groups = scores[0].groups
    for score in scores:
        if score.groups != groups:
            different = sorted(set(groups) ^ set(score.groups)) or ["their order"]
            raise ResultError(f"scores are of different groups: they differ in {', '.join(different[:5])}")
    return groups


def _freedom(components: Sequence[_Component]) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of variances."""
    total = sum(each.variance for each in components)
    return total**2 / sum(each.variance**2 / each.freedom for each in components)


def _t_quantile(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + LEVEL / 2, freedom))
