"""Markdown pages of which a command generates a part, and their tables."""

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
        end: line after it, with its end of line.
        content: to put between them.
        page: name of the page in error messages.

    Raises:
        ConfigError: a marker is missing.
    """
    head, opened, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (opened and closed):
        raise ConfigError(f"{page}: holds no {begin.strip()} and {end.strip()}")
    return f"{head}{begin}\n{content}\n{end}{tail}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], rule: str = "---") -> str:
    """Return a Markdown table, without an end of line.

    Args:
        head: cells above the rule.
        rows: cells below it, as many as in ``head``; see :func:`cell` for texts that may contain a bar.
        rule: line below each cell of ``head``.
    """
    lines = (f"| {' | '.join(row)} |" for row in (head, *rows))
    return "\n".join([next(lines), f"|{rule}" * len(head) + "|", *lines])


def cell(text: str) -> str:
    """Return a text with its bars escaped, so that they do not end a cell."""
    return text.replace("|", "\\|")
