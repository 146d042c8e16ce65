"""Commands about checkpoints: ``inspect`` and ``profile``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    inspect = commands.add_parser("inspect", help="show what a checkpoint is made of")
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("checkpoint", type=Path, help="checkpoint directory or released .pth")

    profile = commands.add_parser("profile", help="parameters, SUPERB MACs and speed of checkpoints")
    profile.set_defaults(run=_profile)
    profile.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="as for inspect")
    profile.add_argument("--seconds", type=float, default=10.0, help="audio to time (default 10)")
    profile.add_argument("--repeats", type=int, default=5, help="runs, interleaved (default 5)")


def _inspect(arguments: argparse.Namespace) -> None:
    from ..card import units_table
    from ..checkpoint import load_model
    from ..cost import macs, parameters

    config = load_model(arguments.checkpoint).config
    print(f"parameters    {parameters(config):,}\nMACs of 10 s  {macs(config, 160_000):,}\n")
    print(units_table(config))


def _profile(arguments: argparse.Namespace) -> None:
    from ..checkpoint import load_model
    from ..errors import ConfigError
    from ..profile import table

    faults = [
        f"--{name} is {value:g}, allowed: {allowed}"
        for name, value, least, allowed in (
            ("seconds", arguments.seconds, 0.1, "0.1 or more"),
            ("repeats", arguments.repeats, 1, "1 or more"),
        )
        if value < least
    ]
    ConfigError.raise_for("profile", faults)
    models = {str(path): load_model(path) for path in arguments.checkpoints}
    print(table(models, arguments.seconds, arguments.repeats))
