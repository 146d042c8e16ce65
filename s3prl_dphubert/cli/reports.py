"""The command ``report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command of this module to a parser."""
    report = commands.add_parser("report", help="write one HTML page about runs of compress")
    report.set_defaults(run=_report)
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder after --out of compress")
    report.add_argument(
        "--out", type=Path, default=Path("report.html"), help="the page (default report.html)"
    )
    scores = "folders of `superb run` with scores of these models, their teacher and baselines"
    report.add_argument("--scores", nargs="+", type=Path, default=[], metavar="DIR", help=scores)
    report.add_argument("--benchmark", default="", help="the one to show scores of, if there are several")
    report.add_argument("--measure", action="store_true", help="time the models and teachers on this machine")
    report.add_argument("--title", default="", help="heading of the page (default: the name of the run)")
    report.add_argument("--overwrite", action="store_true", help="replace a page that is there")


def _report(arguments: argparse.Namespace) -> None:
    import shlex
    import sys

    from ..compression.run_record import read_runs
    from ..run_report import measured_speed, run_page
    from ..run_report.score_sections import is_baseline
    from ..superb.report.collection import collect

    run_page.check_target(arguments.out, arguments.overwrite)
    runs = [run for folder in arguments.runs for run in read_runs(folder)]
    scores = collect(arguments.scores, arguments.benchmark, is_baseline) if arguments.scores else None
    speed = measured_speed.measure(runs) if arguments.measure else None
    command = shlex.join(["s3prl-dphubert", *sys.argv[1:]])
    run_page.write(run_page.render(runs, scores, speed, arguments.title, command), arguments.out)
    print(arguments.out)
