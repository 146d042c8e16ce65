"""Command line: ``s3prl-dphubert COMMAND …``. Each module beside this one holds a few commands."""

from __future__ import annotations

import argparse
import logging
import sys

from ..errors import DPHubertError
from . import bench, compression, data, export, mini, models, pretraining, s3prl_commands, superb

GROUPS = (data, compression, models, bench, export, s3prl_commands, pretraining, superb, mini)


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    whole = argparse.ArgumentParser(prog="s3prl-dphubert", description="Compress speech SSL models.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return whole


def main(argv: list[str] | None = None) -> int:
    """Run one command, for its exit code; a mistake of the user is one line on stderr and code 2."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        return arguments.run(arguments) or 0
    except DPHubertError as error:
        print(f"s3prl-dphubert: {error}", file=sys.stderr)
        return 2
