"""Levenshtein distances, compared with those of another implementation."""

from __future__ import annotations

import numpy as np
import pytest

from s3prl_dphubert.utils.edit_distance import edit_distance


@pytest.mark.parametrize(
    ("hypothesis", "reference", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("intention", "execution", 5),
        (["A", "B"], ["A", "C", "B"], 1),
        (["A", 1], ["A", "1"], 1),
    ],
)
def test_known_distances(hypothesis, reference, distance):
    assert edit_distance(hypothesis, reference) == edit_distance(reference, hypothesis) == distance


def test_distances_are_those_of_editdistance():
    editdistance = pytest.importorskip("editdistance", reason="has no wheel for Python 3.13 and later")
    random = np.random.default_rng(0)
    for _ in range(300):
        one, other = ([str(n) for n in random.integers(0, 6, random.integers(0, 40))] for _ in range(2))
        assert edit_distance(one, other) == editdistance.eval(one, other)
