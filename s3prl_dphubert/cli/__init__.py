"""Command line: ``s3prl-dphubert COMMAND …``. Each module beside this one holds a few commands.

These modules import nothing heavy before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import difflib
import io
import logging
import sys
from typing import Any

from ..errors import DPHubertError, printable
from ..version import __version__
from . import (
    bench,
    cards,
    completion,
    compression,
    data,
    export,
    models,
    probes,
    reports,
    s3prl_commands,
    superb,
)
from .help_texts import add_help_texts
from .machine_trouble import describe

EPILOG = "COMMAND --help shows what it does, with examples."
RENAMED = {"mini-superb": "free-superb"}
GROUPS = (data, compression, reports, models, cards, bench, export, s3prl_commands, superb, probes)


class CommandParser(argparse.ArgumentParser):
    """Parser that names the commands there are when it is given another one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            if value in RENAMED:
                self.error(f"the command {value!r} is called {RENAMED[value]!r} now")
            near = difflib.get_close_matches(str(value), action.choices, n=1)
            guess = f", did you mean {near[0]}?" if near else ";"
            self.error(f"unknown command {value!r}{guess} available: {', '.join(action.choices)}")
        super()._check_value(action, value)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = CommandParser(prog="s3prl-dphubert", description="Compress speech SSL models.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    completion.add(commands, parser)
    add_help_texts(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    A mistake of the user or trouble of the machine is one line on stderr and code 2, Ctrl-C one line and 130.
    """
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("huggingface_hub").propagate = False  # it prints its messages itself
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    try:
        return arguments.run(arguments) or 0
    except DPHubertError as error:
        print(f"s3prl-dphubert: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        advice = "; the same command goes on where it was" if getattr(arguments, "resumes", False) else ""
        print(f"s3prl-dphubert: interrupted{advice}", file=sys.stderr)
        return 130
    except Exception as error:
        message = describe(error)
        if message is None:
            raise  # a fault of this package, which the traceback helps to find
        print(f"s3prl-dphubert: {printable(message)}", file=sys.stderr)
        return 2
