"""Figures of the torture: counts that add up over several runs with a seed, and the tables of their page."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from s3prl_dphubert.utils import environment, markdown
from s3prl_dphubert.utils.files import write_text
from tests.helpers.golden import ROOT

SOUND, REFUSED, SAME, FAILED, SKIPPED = "sound", "refused", "same", "failed", "skipped"
"""Outcomes: read soundly, refused in a line, as undisturbed, failed, not possible."""

RECORDS = ROOT / "docs" / "results" / "torture"
"""Folder of the committed records."""

ALL = {"damage": 20_000, "kills": 500, "disk": 1000, "processes": 140, "submission": 1000}
"""Part -> trials of ``--all``; of kills, the kills themselves."""

LONGEST = 300  # characters of what is kept of a failure
HEAD = (
    "part",
    "what",
    "disturbances",
    "sound, or as undisturbed",
    "refused in a line",
    "not possible",
    "failed",
    "slowest, s",
)
Row = Mapping[str, Any]


def group(row: Row) -> str:
    """Return the kind under which a trial is counted: the condition or fault, whatever command it met."""
    first, _, rest = row["kind"].partition(": ")  # CONDITION: COMMAND, or TASK: FAULT
    return rest if rest and row["part"] == "submission" else first


@dataclass
class Counts:
    """Outcomes of the trials of a kind.

    Args:
        trials: in all.
        disturbances: kills or faults in them.
        sound: were read soundly, or ended as undisturbed.
        refused: in a line.
        skipped: not possible here, or for anybody.
        failed: did neither.
        slowest: seconds of the longest.
    """

    trials: int = 0
    disturbances: int = 0
    sound: int = 0
    refused: int = 0
    skipped: int = 0
    failed: int = 0
    slowest: float = 0.0

    def add(self, row: Row) -> None:
        """Count a trial."""
        self.trials += 1
        self.disturbances += row["disturbances"]
        column = SOUND if row["outcome"] == SAME else row["outcome"]
        setattr(self, column, getattr(self, column) + 1)
        self.slowest = max(self.slowest, row["seconds"])

    def remove(self, row: Row) -> None:
        """Take away a trial that failed."""
        self.trials -= 1
        self.disturbances -= row["disturbances"]
        self.failed -= 1

    @classmethod
    def sum(cls, several: Iterable[Counts]) -> Counts:
        """Return the counts of all together."""
        total = cls()
        for counts in several:
            for name, value in asdict(counts).items():
                both = (getattr(total, name), value)
                setattr(total, name, max(both) if name == "slowest" else sum(both))
        return total

    def cells(self) -> list[str]:
        values = (self.disturbances, self.sound, self.refused, self.skipped, self.failed)
        return [*(f"{value:,}" for value in values), f"{self.slowest:.1f}"]


@dataclass
class Record:
    """All that was tried with one seed, in one or several runs.

    Args:
        seed: of all cases.
        counts: part -> kind -> counts.
        minutes: that the runs took together.
        commits: that were checked out.
        machines: processor, Python and system of each run.
        failures: trials that failed, with their places among the cases of their part.
        mended: those that hold in later code.
    """

    seed: int
    counts: dict[str, dict[str, Counts]] = field(default_factory=dict)
    minutes: float = 0.0
    commits: list[str] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    mended: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read a record."""
        values = json.loads(path.read_text(encoding="utf8"))
        counts = {
            part: {kind: Counts(**each) for kind, each in kinds.items()}
            for part, kinds in values.pop("counts").items()
        }
        return cls(**values, counts=counts)

    @classmethod
    def begin(cls, path: Path | None, seed: int) -> Record:
        """Return the record of a seed, which goes on if there is one, for a run on this machine."""
        record = cls.load(path) if path is not None and path.exists() else cls(seed)
        git = ["git", "rev-parse", "--short", "HEAD"]
        done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
        python = f"Python {platform.python_version()}, {platform.system()}"
        for values, value in (
            (record.commits, done.stdout.strip() or "unknown"),
            (record.machines, f"{environment.processor()}, {python}"),
        ):
            if value not in values:
                values.append(value)
        return record

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    def add(self, row: Row) -> None:
        """Count a trial, the next one of its part."""
        if row["outcome"] == FAILED:
            place = self.total(row["part"]).trials
            self.failures.append({**row, "detail": row["detail"][-LONGEST:], "case": place})
        self._counts(row).add(row)

    def replace(self, failure: dict[str, Any], row: Row) -> None:
        """Count another try of a trial that failed in its place, if it does not fail again."""
        if row["outcome"] != FAILED:
            self.failures.remove(failure)
            self.mended.append(failure)
            self._counts(failure).remove(failure)
            self._counts(row).add(row)

    def _counts(self, row: Row) -> Counts:
        return self.counts.setdefault(row["part"], {}).setdefault(group(row), Counts())

    def total(self, *parts: str) -> Counts:
        """Return the counts of some parts, or of all."""
        return Counts.sum(
            each for part in parts or self.counts for each in self.counts.get(part, {}).values()
        )


def summary(records: Iterable[Record]) -> str:
    """Return one table of the seeds, with how much of ``--all`` was tried, and one of all kinds."""
    records = list(records)
    parts = list(dict.fromkeys(part for record in records for part in record.counts))
    seeds = [
        [
            str(record.seed),
            *(f"{record.total(part).disturbances:,} of {ALL[part]:,}" for part in parts),
            f"{record.total().failed:,}",
            f"{len(record.mended):,}",
            f"{record.minutes:.0f}",
            ", ".join(record.commits),
            "; ".join(record.machines),
        ]
        for record in records
    ]
    head = ("seed", *parts, "failed", "failed in earlier code", "minutes", "commit", "on")
    return f"{markdown.table(head, seeds)}\n\n{markdown.table(HEAD, _lines(records, parts))}\n"


def _lines(records: list[Record], parts: list[str]) -> Iterator[list[str]]:
    for part in parts:
        kinds = dict.fromkeys(kind for record in records for kind in record.counts.get(part, {}))
        for kind in kinds:
            counts = Counts.sum(record.counts.get(part, {}).get(kind, Counts()) for record in records)
            yield [part, kind, *counts.cells()]
    yield ["all", "", *Counts.sum(record.total() for record in records).cells()]


def committed() -> str:
    """Return the tables of the committed records."""
    return summary(Record.load(path) for path in sorted(RECORDS.glob("seed-*.json")))
