"""Command line: ``s3prl-dphubert COMMAND …``. Each module beside this one holds a few commands.

These modules import nothing heavy before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from ..errors import DPHubertError
from ..version import __version__
from . import bench, compression, data, export, models, s3prl_commands, superb

GROUPS = (data, compression, models, bench, export, s3prl_commands, superb)


class CommandParser(argparse.ArgumentParser):
    """Parser that names the commands there are when it is given another one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            self.error(f"unknown command {value!r}; available: {', '.join(action.choices)}")
        super()._check_value(action, value)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = CommandParser(prog="s3prl-dphubert", description="Compress speech SSL models.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake of the user is one line on stderr and code 2."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        return arguments.run(arguments) or 0
    except DPHubertError as error:
        print(f"s3prl-dphubert: {error}", file=sys.stderr)
        return 2
