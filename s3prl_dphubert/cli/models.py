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
    profile.add_argument("--layers", action="store_true", help="layer by layer: parameters, MACs and time")
    profile.add_argument("--seconds", type=float, default=10.0, help="audio to time (default 10)")
    profile.add_argument("--repeats", type=int, default=5, help="runs, interleaved (default 5)")


def _inspect(arguments: argparse.Namespace) -> None:
    from ..checkpoints.load import load_model
    from ..checkpoints.model_card import facts, units_table

    path: Path = arguments.checkpoint
    config = load_model(path).config
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    rows = facts(config) | {"bytes on disk": f"{sum(file.stat().st_size for file in files):,}"}
    for name, value in rows.items():
        print(f"{name:<17}{value}")
    print(f"\n{units_table(config)}")


def _profile(arguments: argparse.Namespace) -> None:
    from ..checkpoints.load import load_model
    from ..errors import ConfigError
    from ..model.profiler import part_tables, table

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
    show = part_tables if arguments.layers else table
    print(show(models, arguments.seconds, arguments.repeats))
