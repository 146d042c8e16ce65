"""Pages of which a part is made by a command, and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ConfigError

BEGIN, END = "<!-- numbers: made by `make pages` -->\n", "<!-- end of numbers -->\n"
"""Markers around the numbers of a page."""


def fill(text: str, begin: str, end: str, content: str, page: str) -> str:
    """Put new content between the markers of a page.

    Args:
        text: of the page.
        begin: line before the content, with its end of line.
        end: line behind it.
        content: what goes between them.
        page: what an error calls it.

    Raises:
        ConfigError: a marker is missing.
    """
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ConfigError(f"{page}: holds no {begin.strip()} and {end.strip()}")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], rule: str = "---") -> str:
    """A Markdown table, without an end of line.

    Args:
        head: cells above the rule.
        rows: cells below it, as many as in ``head``; see :func:`cell` for texts that may hold a bar.
        rule: what is drawn below each cell of ``head``.
    """
    lines = (f"| {' | '.join(row)} |" for row in (head, *rows))
    return "\n".join([next(lines), f"|{rule}" * len(head) + "|", *lines])


def cell(text: str) -> str:
    """A text whose bars do not end its cell."""
    return text.replace("|", "\\|")
