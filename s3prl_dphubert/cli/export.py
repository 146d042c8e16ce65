"""Commands that write a model anew: ``convert`` and ``export-hub``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DTYPES = ("float32", "float16")
SOURCE = "name, directory, file, Hub id (user/repo) or torchaudio:BUNDLE"


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    convert = commands.add_parser("convert", help="turn a model of any format into a checkpoint or a .pth")
    convert.set_defaults(run=_convert)
    convert.add_argument("source", help=SOURCE)
    target = "checkpoint directory; with .pth, the published code's format"
    convert.add_argument("target", type=Path, help=target)
    convert.add_argument(
        "--dtype", choices=(*DTYPES, "bfloat16"), default="float32", help="weights (default float32)"
    )

    hub = commands.add_parser("export-hub", help="write a folder for the Hub that s3prl runs as it is")
    hub.set_defaults(run=_hub)
    hub.add_argument("checkpoint", help=SOURCE)
    hub.add_argument("folder", type=Path, help="folder to write, with expert.py, model.pt and all they need")
    hub.add_argument("--dtype", choices=DTYPES, default="float32", help="weights (default float32)")


def _hub(arguments: argparse.Namespace) -> None:
    import torch

    from ..export_hub import export_hub

    folder = export_hub(arguments.checkpoint, arguments.folder, getattr(torch, arguments.dtype))
    files = [path for path in folder.rglob("*") if path.is_file()]
    print(f"{folder}  {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes")
    print(f"upload: hf upload USER/REPO {folder}")


def _convert(arguments: argparse.Namespace) -> None:
    import torch

    from .. import released
    from ..card import facts, rows_of, units_table
    from ..checkpoint import save_model
    from ..teachers import load_teacher

    target: Path = arguments.target
    dtype = getattr(torch, arguments.dtype)
    model = load_teacher(arguments.source)
    if target.suffix != ".pth":
        table = f"| | |\n|---|---|\n{rows_of({'source': arguments.source} | facts(model.config))}"
        text = f"# {target.name}\n\n{table}\n\n## Units\n\n{units_table(model.config)}\n"
        print(save_model(model, target, text, dtype))
        return
    added = released.write(model, target, dtype)
    print(target)
    if added:
        names = ", ".join(sorted({name.rpartition(".")[0] for name in added}))
        print(f"{sum(added.values()):,} parameters added, since the format has no empty sublayers: {names}")
