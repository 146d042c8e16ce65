"""The benchmark of data loading."""

from __future__ import annotations

import numpy as np
import soundfile

from s3prl_dphubert.bench.loading import make_corpus, rates, table
from s3prl_dphubert.data.audio import read
from s3prl_dphubert.data.batches import BatchConfig, BatchStream


def test_a_corpus_of_flac_is_read_through_the_loader(tmp_path):
    manifest = make_corpus(tmp_path / "corpus", files=4)
    assert len(manifest.entries) == 4
    assert all(8 * 16_000 <= entry.samples < 16 * 16_000 for entry in manifest.entries)
    stream = BatchStream(manifest, BatchConfig(seconds_per_batch=20.0))
    assert all(rate > 0 for workers in (0, 1) for rate in rates(stream, 2, workers))
    rows = table(manifest, 20.0, 2, [0]).splitlines()
    assert len(rows) == 3
    assert rows[2].startswith("| 0 | ")


def test_one_channel_is_taken_as_it_is_and_several_are_averaged(tmp_path):
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 500)).astype(np.float32)
    soundfile.write(tmp_path / "one.wav", left, 16_000, "FLOAT")
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], 1), 16_000, "FLOAT")
    assert np.array_equal(read(tmp_path / "one.wav", 100, 50), left[100:150])
    assert np.allclose(read(tmp_path / "two.wav", 100, 50), (left + right)[100:150] / 2)
