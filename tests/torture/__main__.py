"""``python -m tests.torture``: kills, damage, disk, processes and submission, until the time is over.

Every trial is a line of JSON in ``OUT/trials.jsonl``, and depends on the seed, its kind and its number only.
A failed one leaves its files in ``OUT``. ``--record`` adds the counts to those of earlier runs with the same
seed, and goes on behind them; first, it tries again what failed in them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.torture.figures import Record

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"damage": 0.25, "kills": 0.3, "disk": 0.2, "processes": 0.17, "submission": 0.08}
"""Part -> its share of the time."""

EVERY = 10  # seconds after which the record is saved


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, help="for all parts together (default 10)")
    parser.add_argument("--all", action="store_true", help="stop at 20,000 damaged inputs, 500 kills …")
    parser.add_argument("--seed", type=int, default=0, help="of all cases (default 0)")
    parser.add_argument(
        "--parts", default=",".join(SHARES), help=f"some of {', '.join(SHARES)} (default all)"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "torture", help="folder for new results")
    parser.add_argument("--record", type=Path, help="folder of counts to add to")
    arguments = parser.parse_args(argv)
    arguments.parts = arguments.parts.split(",")
    if unknown := set(arguments.parts) - SHARES.keys():
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; allowed: {', '.join(SHARES)}")
    if arguments.minutes is None:
        arguments.minutes = float("inf") if arguments.all else 10.0
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the parts; the exit code is 1 if a trial failed."""
    arguments = parse(argv)
    os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    from tests.torture.figures import Record, summary
    from tests.torture.sandbox import warm_up

    warm_up()

    out = arguments.out / f"seed{arguments.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    out.mkdir(parents=True)
    path = arguments.record and arguments.record / f"seed-{arguments.seed}.json"
    record = Record.begin(path, arguments.seed)
    failed_before, saved = record.total().failed, time.monotonic()
    with (out / "trials.jsonl").open("w", encoding="utf8") as log:
        for part in arguments.parts:
            for row in run(part, arguments, out, record):
                log.write(json.dumps(row) + "\n")
                log.flush()
                if path is not None and time.monotonic() >= saved + EVERY:
                    record.save(path)
                    saved = time.monotonic()
            if path is not None:
                record.save(path)
    print(f"{summary([record])}\n{out}")
    return int(record.total().failed > failed_before)


def run(part: str, arguments: argparse.Namespace, out: Path, record: Record) -> Iterator[dict[str, Any]]:
    """Run a part until its time is over or all is done, behind what the record has of it; yield the rows."""
    from tests.torture import disk, inputs, kills, processes, submission
    from tests.torture.figures import ALL, FAILED

    modules = {
        "damage": inputs,
        "kills": kills,
        "disk": disk,
        "processes": processes,
        "submission": submission,
    }
    cases = modules[part].cases
    for failure in [failure for failure in record.failures if failure["part"] == part]:
        (case,) = itertools.islice(cases(arguments.seed, out), failure["case"], failure["case"] + 1)
        record.replace(failure, case.run().row())
    began, minutes = time.monotonic(), record.minutes
    end = 60 * arguments.minutes * SHARES[part] / sum(SHARES[each] for each in arguments.parts)
    for case in itertools.islice(cases(arguments.seed, out), record.total(part).trials, None):
        spent = time.monotonic() - began
        if spent >= end or (arguments.all and record.total(part).disturbances >= ALL[part]):
            break
        row = case.run().row()
        record.add(row)
        record.minutes = minutes + (time.monotonic() - began) / 60
        if row["outcome"] == FAILED:
            print(f"{row['part']}, {row['kind']}, {row['number']}: {row['detail']}", file=sys.stderr)
        yield row


if __name__ == "__main__":
    sys.exit(main())
