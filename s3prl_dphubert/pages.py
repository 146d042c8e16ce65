"""Pages of which a part is made by a command."""

from __future__ import annotations

from .errors import ConfigError


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
