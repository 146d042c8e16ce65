"""A thousand damaged inputs: each is refused by an error of the package or gives a sound result.

They are tried in a process of their own, so that a crash or a hang shows as such.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.helpers.golden import ROOT

SCRIPT = ROOT / "tests" / "helpers" / "damage.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
AUDIO, CHECKPOINTS, TEACHERS = 700, 300, 300
TIME_LIMIT = 300  # seconds on a busy machine; alone all take about 15
SLOWEST = 20  # seconds for one case, likewise


def tried(kind, count, folder):
    """Return the outcome of each case of a kind: ``refused``, ``sound`` or else what went wrong."""
    command = [sys.executable, str(SCRIPT), kind, "0", str(count), str(folder)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
    except subprocess.TimeoutExpired as error:
        rows = (error.stdout or b"").decode().splitlines()
        pytest.fail(f"{kind} {len(rows)} hangs, or all of them together are too slow")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        pytest.fail(f"{kind} {len(rows)} ended the process with {done.returncode}: {done.stderr[-2000:]}")
    assert [index for index, _, _ in rows] == list(range(count))
    assert max(seconds for _, _, seconds in rows) < SLOWEST
    return [outcome for _, outcome, _ in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"), [("audio", AUDIO), ("checkpoint", CHECKPOINTS), ("teacher", TEACHERS)]
)
def test_damage_is_refused_or_harmless(tmp_path, kind, count):
    outcomes = tried(kind, count, tmp_path)
    wrong = [f"{kind} {i}: {text}" for i, text in enumerate(outcomes) if text not in ("refused", "sound")]
    assert not wrong, f"{len(wrong)} of {count}, the first:\n" + "\n".join(wrong[:3])
    counts = Counter(outcomes)
    assert counts["refused"] > count / 2  # most of the damage is real
    assert counts["sound"] > count / 20  # and not everything is refused


@pytest.mark.parametrize(
    "body", ["import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "raise SystemExit(3)"]
)
def test_a_crash_would_show(tmp_path, monkeypatch, body):
    script = tmp_path / "crash.py"
    script.write_text(body)
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", script)
    with pytest.raises(pytest.fail.Exception, match="audio 0 ended the process"):
        tried("audio", 1, tmp_path)


def test_a_hang_would_show(tmp_path, monkeypatch):
    script = tmp_path / "hang.py"
    script.write_text("import time; print('[0, \"sound\", 0.1]', flush=True); time.sleep(60)")
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", script)
    monkeypatch.setattr(sys.modules[__name__], "TIME_LIMIT", 2)
    with pytest.raises(pytest.fail.Exception, match="audio 1 hangs"):
        tried("audio", 2, tmp_path)
