"""The README's list of commands: ``python -m s3prl_dphubert.cli.readme README.md`` brings it up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from ..utils import markdown as pages
from ..utils.files import write_text
from . import parser

BEGIN, END = "<!-- commands: made by `make readme` -->\n", "<!-- end of commands -->\n"


def commands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield every command's words, one-line help and parser, nested ones too."""
    yield from _commands(parser(), "")


def _commands(
    whole: argparse.ArgumentParser, before: str
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    nested = [action for action in whole._actions if isinstance(action, argparse._SubParsersAction)]
    for group in nested:
        texts = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for name, inner in group.choices.items():
            words = f"{before}{name}"
            if any(isinstance(action, argparse._SubParsersAction) for action in inner._actions):
                yield from _commands(inner, f"{words} ")
            else:
                yield words, texts.get(name, ""), inner


def markdown() -> str:
    """Markdown of all commands and their arguments; the same on every Python version."""
    parts = []
    for words, text, inner in commands():
        rows = [f"| `{_shape(action)}` | {_cell(action.help)} |" for action in _shown(inner)]
        parts.append(
            "\n".join([f"**`s3prl-dphubert {words}`**: {text}\n", "| argument | |", "|---|---|", *rows])
        )
    return "\n\n".join(parts) + "\n"


def _shown(inner: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in inner._actions if action.dest != "help"]


def _shape(action: argparse.Action) -> str:
    """How an argument is written on the command line."""
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    if isinstance(value, tuple):
        value = " ".join(value)
    if action.nargs in ("*", "+", argparse.REMAINDER):
        value = f"{value} …"
    if not action.option_strings:
        return value
    written = ", ".join(action.option_strings)
    return written if action.nargs == 0 else f"{written} {value}"


def _cell(text: str | None) -> str:
    return pages.cell((text or "").replace("%%", "%").replace("\n", " "))


def fill(text: str) -> str:
    """Put today's commands between the markers of a README.

    Raises:
        ConfigError: the markers are missing.
    """
    return pages.fill(text, BEGIN, END, markdown(), "README")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    filled = fill(path.read_text(encoding="utf8"))
    write_text(path, filled)
