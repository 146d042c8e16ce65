"""Commands that write a model for other programs: ``export-hub``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DTYPES = ("float32", "float16")


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    hub = commands.add_parser("export-hub", help="write a folder for the Hub that s3prl runs as it is")
    hub.set_defaults(run=_hub)
    source = "name, directory, file, Hub id (user/repo) or torchaudio:BUNDLE"
    hub.add_argument("checkpoint", help=source)
    hub.add_argument("folder", type=Path, help="folder to write, with expert.py, model.pt and all they need")
    hub.add_argument("--dtype", choices=DTYPES, default="float32", help="weights (default float32)")


def _hub(arguments: argparse.Namespace) -> None:
    import torch

    from ..export_hub import export_hub

    folder = export_hub(arguments.checkpoint, arguments.folder, getattr(torch, arguments.dtype))
    files = [path for path in folder.rglob("*") if path.is_file()]
    print(f"{folder}  {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes")
    print(f"upload: hf upload USER/REPO {folder}")
