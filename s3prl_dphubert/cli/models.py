"""Commands about models: ``teachers``, ``inspect`` and ``profile``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

SOURCE = "name (see teachers), directory, file, Hub id (user/repo), URL or torchaudio:BUNDLE"


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    teachers = commands.add_parser("teachers", help="list the models that every command takes by name")
    teachers.set_defaults(run=_teachers)

    inspect = commands.add_parser("inspect", help="show the size and the units of a model")
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("model", metavar="MODEL", help=SOURCE)

    profile = commands.add_parser("profile", help="compare parameters, SUPERB MACs and speed of models")
    profile.set_defaults(run=_profile)
    profile.add_argument("models", nargs="+", metavar="MODEL", help=SOURCE)
    profile.add_argument("--layers", action="store_true", help="layer by layer: parameters, MACs and time")
    profile.add_argument("--seconds", type=float, default=10.0, help="audio to time (default 10)")
    profile.add_argument("--repeats", type=int, default=5, help="runs, interleaved (default 5)")


def _teachers(arguments: argparse.Namespace) -> None:
    from ..checkpoints.teachers import TEACHERS

    rows = [("name", "parameters", "MACs of 10 s", "licence", "Hub id")]
    for name, teacher in TEACHERS.items():
        place = teacher.repository or "none, part of this package"
        rows.append((name, f"{teacher.parameters:,}", f"{teacher.macs / 1e9:.1f} G", teacher.license, place))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, parameters, macs, *texts in rows:
        cells = [name.ljust(widths[0]), parameters.rjust(widths[1]), macs.rjust(widths[2])]
        cells += [text.ljust(width) for text, width in zip(texts, widths[3:], strict=True)]
        print("  ".join(cells).rstrip())


def _inspect(arguments: argparse.Namespace) -> None:
    from ..checkpoints.load import load_model
    from ..checkpoints.model_card import facts, units_table

    config = load_model(arguments.model).config
    rows = facts(config)
    path = Path(arguments.model).expanduser()
    if path.exists():
        files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
        rows["bytes on disk"] = f"{sum(file.stat().st_size for file in files):,}"
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
    models = {source: load_model(source) for source in arguments.models}
    show = part_tables if arguments.layers else table
    print(show(models, arguments.seconds, arguments.repeats))
