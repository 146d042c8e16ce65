"""Commands about s3prl's pretraining: ``run_pretrain`` and ``link``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .forward import add_forwarded


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    text = "s3prl's run_pretrain with -u dphubert, in any folder"
    add_forwarded(commands, "run_pretrain", text, _run_pretrain)

    link = commands.add_parser(
        "link", help="put pretrain/dphubert and upstream/dphubert into a checkout of s3prl"
    )
    link.set_defaults(run=_link)
    link.add_argument("checkout", type=Path, help="folder of the checkout, or the s3prl folder in it")
    link.add_argument(
        "--undo", action="store_true", help="remove what was put there and has not been changed"
    )


def _run_pretrain(arguments: list[str]) -> None:
    from ..pretrain.launch import run_pretrain

    run_pretrain(arguments)


def _link(arguments: argparse.Namespace) -> None:
    from ..pretrain.link import link, unlink

    for line in (unlink if arguments.undo else link)(arguments.checkout):
        print(line)
