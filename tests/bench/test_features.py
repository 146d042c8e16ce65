"""Benchmark of cached hidden states: s3prl runs with and without them, and the table of times."""

from __future__ import annotations

import json
import sys

import pytest

from s3prl_dphubert.bench.features import HEAD, WAYS, CacheSpeedup, main, measure, table
from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.errors import ConfigError
from tests.helpers.models import tiny


@pytest.mark.slow
@pytest.mark.s3prl
def test_three_ways_of_s3prl(tmp_path, monkeypatch):
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "own"))
    model = str(save_model(tiny("hubert"), tmp_path / "tiny"))
    (result,) = measure(tmp_path / "out", (model,), epochs=2, seconds=1, repeats=1)
    assert list(result.times) == list(WAYS)
    assert all(took > 0 for took in result.times.values())
    assert result.stored == pytest.approx(result.seconds * 50 * 4 * 32 * 2, abs=1)
    assert json.loads((tmp_path / "out/features.json").read_text())[0]["times"] == result.times
    logs = {path.parent.name: path.read_text() for path in (tmp_path / "out").glob("*/train.log")}
    texts = {way: next(text for name, text in logs.items() if f"-{way}-" in name) for way in WAYS}
    assert "hidden states" not in texts["without"].replace("feature hidden_states", "")
    assert " of 0 computed" not in texts["empty"]
    assert " of 0 computed (0 stored)" in texts["full"]
    said = r"epochs is 0, allowed: 1 or more; out is .*, allowed: an empty"
    with pytest.raises(ConfigError, match=said):
        measure(tmp_path / "out", epochs=0)
    monkeypatch.setattr(sys, "argv", ["features", str(tmp_path / "out"), "--epochs", "0"])
    with pytest.raises(SystemExit, match=said):
        main()


def test_table():
    row = CacheSpeedup("base", 60.0, 5, 59_904_000, {"without": 100.0, "empty": 25.0, "full": 4.0})
    head, line = table([row]).splitlines()
    assert head == HEAD
    assert line.split() == ["base", "60", "5", "59.9", "100.0", "25.0", "4.0", "4.0", "25.0"]
    assert len(line) == len(head)
