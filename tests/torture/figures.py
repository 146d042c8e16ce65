"""Figures of a run: a table of outcomes, and the page that holds the last one."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3prl_dphubert.utils import environment, markdown
from s3prl_dphubert.utils.files import write_text
from tests.helpers.golden import ROOT
from tests.torture.sandbox import FAILED, REFUSED, SAME, SKIPPED, SOUND

BEGIN, END = "<!-- figures: made by `make torture` -->\n", "<!-- end of figures -->\n"
HEAD = (
    "part",
    "what",
    "disturbances",
    "sound, or as undisturbed",
    "refused in a line",
    "skipped",
    "failed",
    "slowest, s",
)
Row = dict[str, Any]


def summary(rows: Sequence[Row], seed: int, minutes: float) -> str:
    """Return a table of the outcomes, with what they were measured on.

    Args:
        rows: of the trials.
        seed: of the run.
        minutes: it took.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        first, _, rest = row["kind"].partition(": ")  # CONDITION: COMMAND, or TASK: FAULT
        groups[row["part"], rest if rest and row["part"] == "submission" else first].append(row)
    lines = [_line(part, kind, group) for (part, kind), group in groups.items()]
    lines.append(_line("all", "", rows))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    made = f"Seed {seed}, commit {commit or 'unknown'}, {minutes:.0f} minutes on {environment.processor()}"
    system = f"Python {platform.python_version()}, {platform.system()}"
    return f"{made}, {system}.\n\n{markdown.table(HEAD, lines)}\n"


def _line(part: str, kind: str, rows: Sequence[Row]) -> list[str]:
    counts = Counter(row["outcome"] for row in rows)
    slowest = max(row["seconds"] for row in rows) if rows else 0.0
    cells = (
        sum(row["disturbances"] for row in rows),
        counts[SOUND] + counts[SAME],
        counts[REFUSED],
        counts[SKIPPED],
        counts[FAILED],
    )
    return [part, kind, *map(str, cells), f"{slowest:.1f}"]


def fill(page: Path, text: str) -> None:
    """Write figures into a page, between their markers."""
    write_text(page, markdown.fill(page.read_text(encoding="utf8"), BEGIN, END, text, str(page)))
