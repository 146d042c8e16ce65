"""Commands that hand all of their arguments on to a program of s3prl."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_forwarded(commands: Any, name: str, text: str, run: Callable[[list[str]], None]) -> None:
    """Add a command; ``run`` is given the arguments as they are, options too."""
    # No character starts an option here, so that all of them are left to s3prl.
    parser = commands.add_parser(name, help=text, prefix_chars="\0", add_help=False)
    parser.set_defaults(run=lambda arguments: run(arguments.arguments))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="what s3prl takes")
