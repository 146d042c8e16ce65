"""Levenshtein distance of sequences, which word and phone error rates count."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def edit_distance(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> int:
    """Return the fewest insertions, deletions and substitutions that turn one sequence into the other."""
    import numpy as np

    ids: dict[Hashable, int] = {}
    columns = np.array([ids.setdefault(token, len(ids)) for token in reference], dtype=np.int64)
    steps = np.arange(len(columns) + 1)
    row = steps
    for index, token in enumerate(hypothesis, start=1):
        best = np.full_like(row, index)
        np.minimum(row[1:] + 1, row[:-1] + (columns != ids.get(token, -1)), out=best[1:])
        row = np.minimum.accumulate(best - steps) + steps  # insertions: any number of steps to the right
    return int(row[-1])
