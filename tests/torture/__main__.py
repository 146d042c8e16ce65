"""``python -m tests.torture``: kills, damage, disk, processes and submission, until the time is over.

Every trial is a line of JSON in ``OUT/trials.jsonl``, and depends on the seed, its kind and its number only.
A failed one leaves its files in ``OUT``. ``--page`` writes the figures into the page about reliability.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.torture.sandbox import Trial

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"damage": 0.35, "kills": 0.3, "disk": 0.15, "processes": 0.12, "submission": 0.08}
"""Part -> its share of the time."""

ALL = {"damage": 20_000, "kills": 500, "disk": 1000, "processes": 140, "submission": 1000}
"""Part -> trials of ``--all``; of kills, the kills themselves."""

SLOW_FROM = 400  # seconds of kills from which s3prl's commands are among them: each takes half a minute


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=10.0, help="for all parts together (default 10)")
    length.add_argument("--all", action="store_true", help="20,000 damaged inputs, 500 kills …: a night")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default 0)")
    parser.add_argument(
        "--parts", default=",".join(SHARES), help=f"some of {', '.join(SHARES)} (default all)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "torture", help="new folder for results")
    parser.add_argument("--page", type=Path, help="page to write the figures into")
    arguments = parser.parse_args(argv)
    arguments.parts = arguments.parts.split(",")
    if unknown := set(arguments.parts) - SHARES.keys():
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; allowed: {', '.join(SHARES)}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the parts; the exit code is 1 if a trial failed."""
    arguments = parse(argv)
    os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    from tests.torture.figures import fill, summary
    from tests.torture.sandbox import FAILED, warm_up

    warm_up()

    out = arguments.out / f"seed{arguments.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    out.mkdir(parents=True)
    began, rows = time.monotonic(), []
    with (out / "trials.jsonl").open("w", encoding="utf8") as log:
        for row in run(arguments, out):
            rows.append(row)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if row["outcome"] == FAILED:
                print(f"{row['part']}, {row['kind']}, {row['number']}: {row['detail']}", file=sys.stderr)
    text = summary(rows, arguments.seed, (time.monotonic() - began) / 60)
    (out / "summary.md").write_text(text, encoding="utf8")
    print(f"{text}\n{out}")
    if arguments.page is not None:
        fill(arguments.page, text)
    return int(any(row["outcome"] == FAILED for row in rows))


def run(arguments: argparse.Namespace, out: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of all parts, each within its time or up to its number of trials."""
    from tests.torture import commands, damaged_files, disk, kills, processes, submission

    whole = sum(SHARES[part] for part in arguments.parts)
    seconds = {part: 60 * arguments.minutes * SHARES[part] / whole for part in arguments.parts}
    slow = arguments.all or seconds.get("kills", 0) >= SLOW_FROM
    parts = {
        "damage": damaged_files.trials,
        "kills": partial(kills.trials, commands=commands.COMMANDS + commands.SLOW_COMMANDS * slow),
        "disk": disk.trials,
        "processes": processes.trials,
        "submission": submission.trials,
    }
    for part in arguments.parts:
        end, done = time.monotonic() + seconds[part], 0
        for trial in _caught(part, parts[part](arguments.seed, out)):
            yield trial.row()
            done += trial.disturbances
            if done >= ALL[part] if arguments.all else time.monotonic() >= end:
                break


def _caught(part: str, trials: Iterator[Trial]) -> Iterator[Trial]:
    """Yield trials; an error of the torture itself, or of a command that it starts from, is a failed one."""
    try:
        yield from trials
    except Exception:
        from tests.torture.sandbox import Trial

        yield Trial(part, "the torture itself", 0, "failed", traceback.format_exc(), disturbances=0)


if __name__ == "__main__":
    sys.exit(main())
