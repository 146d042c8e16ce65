"""Commands about s3prl: ``run_downstream`` and ``doctor``."""

from __future__ import annotations

import argparse
from typing import Any

from .forward import add_forwarded


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    text = "s3prl's run_downstream with our upstreams, where .pth files are not read"
    add_forwarded(commands, "run_downstream", text, _run_downstream)

    doctor = commands.add_parser("doctor", help="what works here, what is missing and how to get it")
    doctor.set_defaults(run=_doctor)


def _run_downstream(arguments: list[str]) -> None:
    import runpy
    import sys

    from ..upstream.registry import register

    register()
    sys.argv = ["run_downstream.py", *arguments]
    runpy.run_module("s3prl.run_downstream", run_name="__main__", alter_sys=True)


def _doctor(arguments: argparse.Namespace) -> int:
    from ..doctor import examine, report

    findings = examine()
    print(report(findings))
    return int(any(finding.broken for finding in findings))
