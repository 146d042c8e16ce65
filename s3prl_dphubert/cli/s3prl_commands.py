"""Commands about s3prl: ``run_downstream``, ``doctor``, ``run_pretrain`` and ``link``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    text = "s3prl's run_downstream with our upstreams, where .pth files are not read"
    _add_forwarding(commands, "run_downstream", text, _run_downstream)

    doctor = commands.add_parser("doctor", help="what works here, what is missing and how to get it")
    doctor.set_defaults(run=_doctor)

    text = "s3prl's run_pretrain with -u dphubert, in any folder"
    _add_forwarding(commands, "run_pretrain", text, _run_pretrain)

    link = commands.add_parser(
        "link", help="put pretrain/dphubert and upstream/dphubert into a checkout of s3prl"
    )
    link.set_defaults(run=_link)
    link.add_argument("checkout", type=Path, help="folder of the checkout, or the s3prl folder in it")
    link.add_argument(
        "--undo", action="store_true", help="remove what was put there and has not been changed"
    )


def _add_forwarding(commands: Any, name: str, text: str, run: Callable[[list[str]], None]) -> None:
    """Add a command that hands all of its arguments, options included, on to a program of s3prl."""
    # No character starts an option here, so that all of them, --help too, are left to s3prl.
    parser = commands.add_parser(name, help=text, prefix_chars="\0", add_help=False)
    parser.set_defaults(run=lambda arguments: run(arguments.arguments))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="what s3prl takes")


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


def _run_pretrain(arguments: list[str]) -> None:
    from ..pretrain.launch import run_pretrain

    run_pretrain(arguments)


def _link(arguments: argparse.Namespace) -> None:
    from ..pretrain.link import link, unlink

    for line in (unlink if arguments.undo else link)(arguments.checkout):
        print(line)
