"""Division of batches for exported files."""

from __future__ import annotations

import pytest

from s3prl_dphubert.export.batching import FEW, STEP, divide
from s3prl_dphubert.model.inference.folded import SPILL
from tests.helpers.models import FAMILIES

BASE, DATA2VEC = FAMILIES["hubert_base"], FAMILIES["data2vec_base"]


def divided(seconds, streams=2, most=FEW, config=BASE):
    """Parts of a batch of utterances of so many seconds."""
    valid = [config.frames(int(16_000 * each)) for each in seconds]
    return valid, divide(config, int(16_000 * max(seconds)), valid, streams, most)


def rows(parts):
    return [part.rows for part in parts]


@pytest.mark.parametrize("config", [BASE, DATA2VEC])
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("most", [FEW, 2048])
def test_every_utterance_once_with_all_frames_that_matter(config, streams, most):
    seconds = [3.7, 15.6, 0.025, 0.01, 8.0, 2.5, 2.6, 2.5, 12.3, 0.4, 15.59]
    valid, parts = divided(seconds, streams, most, config)
    assert sorted(row for part in parts for row in part.rows) == list(range(len(seconds)))
    whole, total = 249_600, config.frames(249_600)
    reach = (config.pos_conv_depth - 1) * (config.pos_conv_kernel // 2)
    for part in parts:
        frames = config.frames(part.samples)
        assert frames == total or (frames % STEP == 0 and part.samples < whole)
        for row, frames_kept in zip(part.rows, part.kept, strict=True):
            assert frames_kept == (min(valid[row] + SPILL, total) if valid[row] else 0)
            assert frames >= min(valid[row] + SPILL + reach, total)
            # All samples of the utterance are there, so that what is cut is zero.
            assert part.samples == whole or part.samples >= 16_000 * seconds[row] + config.conv_kernels[0]


def test_long_utterances_are_alone_and_short_ones_together():
    assert rows(divided([10, 2, 15, 4])[1]) == [(2,), (0,), (3,), (1,)]
    assert rows(divided([1.0] * 8)[1]) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert rows(divided([1.0] * 4)[1]) == [(0, 1), (2, 3)]  # no stream is idle
    assert rows(divided([1.0] * 4, streams=1)[1]) == [(0, 1, 2, 3)]


def test_a_runtime_that_likes_large_parts_gets_those_that_are_alike():
    assert rows(divided([10.0] * 8, 1, 2048)[1]) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert rows(divided([10, 15.6, 10.1, 15.5], 1, 2048)[1]) == [(1, 3), (2, 0)]


def test_nothing_is_cut_where_nothing_is_padded():
    _, parts = divided([7.77] * 3)
    assert {part.samples for part in parts} == {int(16_000 * 7.77)}
