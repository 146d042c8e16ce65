"""Scores by voice as plain values for ``score.json``, from which any report resamples them.

``ratio`` holds sums by voice, ``trials`` counts of scores by pair of voices, ``terms`` values by query. Rows
of numbers are strings, so that a file stays readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import ResultError
from ..metrics.eer import VerificationTrials
from ..metrics.mtwv import TermWeightedValues
from .uncertainty import Ratio, Statistic

RATIO, TRIALS, TERMS = KINDS = ("ratio", "trials", "terms")


def to_plain(statistic: Statistic) -> dict[str, Any]:
    """Return a statistic as values for JSON.

    Raises:
        ResultError: there is no way to store its kind.
    """
    groups = list(statistic.groups)
    if isinstance(statistic, Ratio):
        sums = {"numerators": list(statistic.numerators), "denominators": list(statistic.denominators)}
        return {"kind": RATIO, "groups": groups, **sums, "scale": statistic.scale}
    if isinstance(statistic, VerificationTrials):
        rows = {name: _rows(getattr(statistic, name)) for name in ("pairs", "counts")}
        return {"kind": TRIALS, "groups": groups, **rows, "panels": _rows(statistic.panels[None])}
    if isinstance(statistic, TermWeightedValues):
        return {"kind": TERMS, "groups": groups, "values": _rows(statistic.values.round(4))}
    raise ResultError(
        f"statistic is {type(statistic).__name__}, allowed: one of the kinds {', '.join(KINDS)}"
    )


def from_plain(values: Mapping[str, Any]) -> Statistic:
    """Return the statistic that :func:`to_plain` stored.

    Raises:
        ResultError: the values are not of a kind, lack something, or do not fit together.
    """
    kind = values.get("kind")
    if kind not in KINDS:
        raise ResultError(f"kind of a statistic is {kind!r}, allowed: {', '.join(KINDS)}")
    try:
        groups = tuple(map(str, values["groups"]))
        if kind == RATIO:
            tops, bottoms = (tuple(map(float, values[name])) for name in ("numerators", "denominators"))
            return Ratio(groups, tops, bottoms, float(values["scale"]))
        if kind == TRIALS:
            pairs, counts, panels = (_matrix(values[name], int) for name in ("pairs", "counts", "panels"))
            return VerificationTrials(groups, pairs, panels.reshape(-1), counts)
        return TermWeightedValues(groups, _matrix(values["values"], float))
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"statistic of kind {kind} is damaged ({error})") from error


def _rows(values: np.ndarray) -> list[str]:
    return [" ".join(f"{value:g}" for value in row) for row in values.tolist()]


def _matrix(rows: list[str], dtype: type) -> np.ndarray:
    return np.array([[dtype(cell) for cell in row.split()] for row in rows])
