"""Runs that are killed anywhere, again and again, end with the same model to the bit."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest

from s3prl_dphubert import compress
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.utils.config_io import from_dict
from tests.helpers.compression_runs import make_place, settings
from tests.helpers.file_changes import watch_changes
from tests.helpers.forked_processes import finish, run

pytestmark = pytest.mark.slow

KILLS = 20
AREAS = ("", "stage1/", "projections", "pruned", "stage2/", "model.", "results", ".png")


def short(place):
    """A few updates with all options that keep more than weights: embeddings, means, projected gates."""
    values = settings(place)
    for stage in ("stage1", "stage2"):
        values[stage] |= {"updates": 6, "validate_every": 3}
    values["stage2"] |= {"validate_every": 1, "average_best": 2}
    values["objective"] |= {"masking": {}, "gram": 0.5, "gram_intra": 0.5}
    values["budget"] |= {"constraint": "projection", "curve": "cosine"}
    return from_dict(CompressConfig, values)


def measured(place, out, target):
    """An undisturbed run; keeps its writes and how long it took."""
    writes, began = [], time.monotonic()
    watch_changes(out, writes.append)
    compress(short(place), out)
    target.write_text(json.dumps({"writes": writes, "seconds": time.monotonic() - began}))


def doomed(place, out, moment):
    """A run that dies at the write of that number, counted from 0, if it gets there."""
    left = [moment]

    def die(what):
        if left[0] == 0:
            print(f"\n{what}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    watch_changes(out, die)
    compress(short(place), out)


def rows(out, stage):
    entries = [json.loads(row) for row in (out / stage / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "audio_seconds_per_second"} for row in entries]


def assert_same_end(out, whole):
    for name in ("pruned/model.safetensors", "model/model.safetensors", "projections.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("results.json", "model/config.json", "model/README.md"):
        assert (out / name).read_text() == (whole / name).read_text(), name
    for stage in ("stage1", "stage2"):
        assert rows(out, stage) == rows(whole, stage)
        assert len(rows(out, stage)) == 6
    assert not list(out.rglob("*.part"))


def test_runs_killed_at_random_moments_end_alike(tmp_path):
    """Each run is killed at a random write in each area, then, on its way again, at a random time."""
    place, logs, whole = make_place(tmp_path), tmp_path / "logs", tmp_path / "whole"
    finish(run(logs, measured, place, whole, tmp_path / "whole.json"))
    known = json.loads((tmp_path / "whole.json").read_text())
    random, kills, places = np.random.default_rng(11), 0, []
    for attempt in range(2 * KILLS):
        out = tmp_path / f"run{attempt}"
        area = AREAS[attempt % len(AREAS)]
        moments = [place for place, write in enumerate(known["writes"]) if area in write]
        (victim,) = run(logs, doomed, place, out, int(random.choice(moments)))
        assert victim.wait().code == -signal.SIGKILL
        places.append(victim.text.splitlines()[-1])
        (victim,) = run(logs, doomed, place, out, -1)
        victim.process.join(random.uniform(0, 0.6 * known["seconds"]))
        victim.process.kill()
        kills += 1 + (victim.wait().code == -signal.SIGKILL)
        finish(run(logs, doomed, place, out, -1))
        assert_same_end(out, whole)
        if kills >= KILLS:
            break
    assert kills >= KILLS
    assert all(area in place for area, place in zip(AREAS, places, strict=False))
