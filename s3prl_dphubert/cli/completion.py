"""The command ``completion``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Any, whole: argparse.ArgumentParser) -> None:
    """Add the command to a parser, all commands of which it completes."""
    completion = commands.add_parser("completion", help="print a script that completes commands in a shell")
    completion.set_defaults(run=lambda arguments: _completion(whole, arguments.shell))
    completion.add_argument("shell", choices=SHELLS, help="which shell")


def _completion(parser: argparse.ArgumentParser, shell: str) -> None:
    from ..errors import RunError

    try:
        import shtab
    except ImportError as error:
        raise RunError("completion needs shtab: pip install shtab") from error
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell), end="")


def _complete_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Have the arguments that are paths, and the sources of models, completed by names of files."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_files(inner, files)
        elif action.type is Path or action.metavar in ("MODEL", "SOURCE", "PATH") or action.dest == "config":
            action.complete = files  # type: ignore[attr-defined]
