"""Progress: a bar on a terminal, else lines that a log can hold."""

from __future__ import annotations

import io
import sys

from s3prl_dphubert.training import update_progress
from s3prl_dphubert.training.update_progress import UpdateProgress


def test_lines_without_a_terminal(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(update_progress.time, "monotonic", lambda: now[0])
    shown = UpdateProgress("stage1", first=100, updates=400)
    for _ in range(300):
        now[0] += 0.5
        shown.step({"loss": -0.51234, "sparsity": 0.25, "audio_seconds_per_second": 31.4, "l1": 3.0})
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6  # at first, every 30 s, and at the end
    assert lines[0].startswith("stage1 101/400, 2.0 updates/s, 0:02:30 left, loss -0.512, sparsity 0.250")
    assert (
        lines[-1] == "stage1 400/400, 2.0 updates/s, 0:00:00 left, loss -0.512, sparsity 0.250, audio-s/s 31"
    )
    assert not any("\r" in line for line in lines)


def test_slow_updates_are_given_in_seconds():
    shown = UpdateProgress("stage2", first=0, updates=10, enabled=False)
    shown.step()
    assert shown.line(4.0) == "stage2 1/10, 4.0 s/update, 0:00:36 left"


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = UpdateProgress("stage1", first=0, updates=2)
    shown.step({"loss": 0.5})
    shown.step()
    shown.close()
    assert "stage1: 100%" in terminal.getvalue()
    silent = io.StringIO()
    monkeypatch.setattr(sys, "stderr", silent)
    UpdateProgress("stage1", first=0, updates=2, enabled=False).step()
    assert silent.getvalue() == ""
