"""The command ``mini-superb``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command of this module to a parser."""
    mini = commands.add_parser("mini-superb", help="build a small SUPERB of real speech from Debian packages")
    mini.set_defaults(run=_mini)
    mini.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the build, new or begun"
    )
    mini.add_argument(
        "--debs", type=Path, metavar="DIR", help="take the .deb files from here instead of downloading them"
    )
    mini.add_argument("--tasks", default="all", help="names with commas between them (default all)")
    unlabelled = (
        "also decode all packages (0.8 GB) and list speech to compress with, without that of the tests"
    )
    mini.add_argument("--unlabelled", action="store_true", help=unlabelled)


def _mini(arguments: argparse.Namespace) -> None:
    from ..mini.build import build

    build(arguments.out, arguments.tasks.split(","), arguments.debs, arguments.unlabelled)
    print(arguments.out / "README.md")
