"""Commands that compress: ``compress`` and ``demo``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    compress = commands.add_parser("compress", help="compress a teacher, or go on with a run")
    compress.set_defaults(run=_compress)
    compress.add_argument("config", type=Path, help="YAML of the run")
    compress.add_argument("--out", required=True, type=Path, help="directory of the run")

    demo = commands.add_parser("demo", help="compress hubert_nano on the speech that ships")
    demo.set_defaults(run=_demo)
    demo.add_argument("--out", type=Path, default=Path("demo-output"), help="directory of the demo's run")
    demo.add_argument("--config", type=Path, help="another YAML than upstream_configs/demo.yaml")


def _compress(arguments: argparse.Namespace) -> None:
    from ..pipeline import compress

    compress(arguments.config, arguments.out)
    if os.environ.get("RANK", "0") == "0":
        print(f"{arguments.out / 'model'}")


def _demo(arguments: argparse.Namespace) -> None:
    from ..demo import demo

    demo(arguments.out, arguments.config)
