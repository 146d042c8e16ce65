"""Commands about s3prl: ``run_downstream`` and ``doctor``."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    # No character starts an option here, so that all of them are left to s3prl.
    runner = commands.add_parser(
        "run_downstream",
        help="s3prl's run_downstream with our upstreams, where .pth files are not read",
        prefix_chars="\0",
        add_help=False,
    )
    runner.set_defaults(run=_run_downstream)
    runner.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="what s3prl takes")

    doctor = commands.add_parser("doctor", help="what works here, what is missing and how to get it")
    doctor.set_defaults(run=_doctor)


def _run_downstream(arguments: argparse.Namespace) -> None:
    import runpy
    import sys

    from ..upstream.registry import register

    register()
    sys.argv = ["run_downstream.py", *arguments.arguments]
    runpy.run_module("s3prl.run_downstream", run_name="__main__", alter_sys=True)


def _doctor(arguments: argparse.Namespace) -> int:
    from ..doctor import examine, report

    findings = examine()
    print(report(findings))
    return int(any(finding.broken for finding in findings))
