"""Comparison of two benchmarks: what became slower, and what cannot be compared."""

from __future__ import annotations

import copy
import json

import pytest

from s3prl_dphubert.bench.speed_changes import compare, read_results, table
from s3prl_dphubert.errors import CheckpointError, ConfigError

MACHINE = {"processor": "A", "family, model": "1, 2", "flags": "avx2", "cores": "2"}


def results(**medians):
    """Results of subjects with quartiles 2 % away from their medians."""
    rows = [
        {"subject": name, "workload": "1 × 4 s", "median": m, "low": 0.98 * m, "high": 1.02 * m}
        for name, m in medians.items()
    ]
    return {"machine": dict(MACHINE), "threads": 2, "rows": rows}


def test_changes_beyond_the_noise_are_named():
    changes = compare(results(a=1.0, b=1.0, c=1.0, old=1.0), results(c=0.5, b=1.03, a=1.2, new=1.0))
    assert [(change.subject, change.verdict) for change in changes] == [
        ("c", "faster"),
        ("b", ""),
        ("a", "slower"),
    ]
    assert changes[2].ratio == pytest.approx(1.2) and changes[2].noise == pytest.approx(0.04)
    text = table(changes)
    assert text.endswith("slower by more than the noise: a (1 × 4 s)")
    assert table(compare(results(a=1.0), results(a=1.0))).endswith("nothing became slower")


def test_a_noisy_run_flags_less():
    before, now = results(a=1.0), results(a=1.2)
    now["rows"][0]["high"] = 1.6
    assert compare(before, now)[0].verdict == ""


def test_other_processors_are_not_compared():
    now = copy.deepcopy(results(a=1.0))
    now["machine"]["processor"], now["threads"] = "B", 4
    with pytest.raises(ConfigError, match="processor was A, allowed: B, as now; threads was 2, allowed: 4"):
        compare(results(a=1.0), now)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"rows": []}'])
def test_what_is_no_benchmark_is_refused(tmp_path, content):
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError, match=r"old\.json"):
        read_results(path)
    path.write_text(json.dumps(results(a=1.0)))
    assert read_results(path)["rows"][0]["subject"] == "a"
