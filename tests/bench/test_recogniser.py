"""Benchmark of s3prl's recogniser: equal models, timed in turns."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.bench import recogniser

pytestmark = pytest.mark.s3prl


def test_both_compute_the_same():
    models = recogniser.recognisers(8)
    inputs, lengths = torch.randn(2, 9, 8), torch.tensor([9, 5])
    outputs = [model.eval()(inputs, lengths)[0] for model in models.values()]
    assert len({type(model.rnns[0].layer) for model in models.values()}) == 2
    torch.testing.assert_close(*outputs)


def test_the_table_has_a_row_of_each_shape():
    lines = recogniser.table([(2, 6, 8), (1, 4, 8)], repeats=2).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["2 × 6 × 8", "1 × 4 × 8"]
    assert all(float(line.split("|")[4].split()[0]) > 0 for line in lines[2:])
