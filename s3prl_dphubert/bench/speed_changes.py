"""Comparison of two benchmarks of inference on one kind of processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from ..utils import markdown
from ..utils.readers import LARGEST_RECORD, parse_json, read_limited, reading

LEAST = 0.03  # share of the time below which a difference is not worth a word
SAME = ("processor", "family, model", "flags", "cores")
"""Facts that have to be the same of both machines."""


@dataclass(frozen=True)
class SpeedChange:
    """Times of a subject with a batch in two benchmarks, in seconds per second of audio.

    Args:
        subject: name of the subject.
        workload: name of the batch.
        before: median of the older benchmark.
        now: median of the newer one.
        noise: share of the time that the quartiles of both are away from their medians, together.
    """

    subject: str
    workload: str
    before: float
    now: float
    noise: float

    @property
    def ratio(self) -> float:
        """Newer time over the older."""
        return self.now / self.before

    @property
    def verdict(self) -> str:
        """``slower`` or ``faster`` by more than the noise, or nothing."""
        limit = 1 + max(self.noise, LEAST)
        return "slower" if self.ratio > limit else "faster" if self.ratio < 1 / limit else ""


def read_results(path: Path) -> dict[str, Any]:
    """Read the ``speed.json`` of a benchmark.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    with reading(path, CheckpointError, "results of bench"):
        results = parse_json(read_limited(path, LARGEST_RECORD).decode())
    if not isinstance(results, dict) or not {"machine", "threads", "rows"} <= results.keys():
        raise CheckpointError(f"{path}: not the speed.json of a benchmark")
    return results


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[SpeedChange]:
    """Return the changes of all subjects and batches that both have, in the order of the newer one.

    Raises:
        ConfigError: they ran on different processors or threads, so that times cannot be compared.
    """
    ConfigError.raise_for("against", _differences(before, now))
    old = {(row["subject"], row["workload"]): row for row in before["rows"]}
    changes = []
    for row in now["rows"]:
        other = old.get((row["subject"], row["workload"]))
        if other is not None:
            noise = sum(
                max(r["high"] - r["median"], r["median"] - r["low"]) / r["median"] for r in (row, other)
            )
            changes.append(
                SpeedChange(row["subject"], row["workload"], other["median"], row["median"], noise)
            )
    return changes


def table(changes: list[SpeedChange]) -> str:
    """Return the changes as a table, and a line on what became slower."""
    head = ["", "batch", "before", "now", "now/before", "noise", ""]
    lines = [
        [
            change.subject,
            change.workload,
            f"{change.before:.4f}",
            f"{change.now:.4f}",
            f"{change.ratio:.2f}",
            f"{change.noise:.0%}",
            change.verdict,
        ]
        for change in changes
    ]
    slower = [f"{change.subject} ({change.workload})" for change in changes if change.verdict == "slower"]
    verdict = f"slower by more than the noise: {', '.join(slower)}" if slower else "nothing became slower"
    return f"{markdown.table(head, lines)}\n\n{verdict}"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    pairs = [(name, before["machine"].get(name), now["machine"].get(name)) for name in SAME]
    for name, old, new in [*pairs, ("threads", before["threads"], now["threads"])]:
        if old != new:
            yield f"{name} was {old}, allowed: {new}, as now"
