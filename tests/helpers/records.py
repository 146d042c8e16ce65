"""A result as a finished task leaves it."""

from __future__ import annotations

from s3prl_dphubert.superb.scoring.score_file import Record

RECORD = Record(
    task="KS",
    upstream="mine",
    metrics={"acc": 96.0},
    seed=0,
    learning_rate=1e-4,
    s3prl="0.4.18",
    date="2026-11-24T10:00:00",
    command="python -m s3prl.run_downstream",
    parameters=23_590_000,
)
