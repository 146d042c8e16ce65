"""A tutorial as a notebook: text, commands and configurations of the page as cells."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")
PICTURES = """from IPython.display import Image, display

for name in ("training", "units"):
    display(Image(f"runs/first/{name}.png"))
"""
INSTALL = "install"
"""Tag of the cell that installs the package."""


def notebook(page: Path, target: Path) -> str:
    """Return a page as the text of a notebook, without outputs.

    Args:
        page: tutorial that is followed in the root of a clone.
        target: place of the notebook, one folder below that root.
    """
    cells = []
    for number, (kind, source, tags) in enumerate(_cells(page, target)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source}
        if tags:
            cell["metadata"]["tags"] = tags
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cells(page: Path, target: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield kind, source and tags of each cell."""
    text, end = page.read_text(encoding="utf8"), 0
    for fence in FENCE.finditer(text):
        yield from _text(text[end : fence.start()], page, target)
        end = fence.end()
        language, source = fence[1], fence[2].rstrip("\n")
        if language == "sh" and "git clone" in source:
            yield "code", "%cd ..\n%pip install --quiet .", [INSTALL]
        elif language == "sh":
            yield "code", re.sub(r"^(?=\S)", "!", source, flags=re.MULTILINE), []
        elif language == "yaml":
            yield "code", f"%%writefile run.yaml\n{source}", []
        elif language == "python":
            yield "code", source, []
    yield from _text(text[end:], page, target)


def _text(text: str, page: Path, target: Path) -> Iterator[tuple[str, str, list[str]]]:
    def moved(link: re.Match[str]) -> str:
        path, mark, anchor = link[1].partition("#")
        return f"]({Path(os.path.relpath(page.parent / path, target.parent)).as_posix()}{mark}{anchor})"

    if text.strip():
        yield "markdown", LINK.sub(moved, text.strip()), []
    if "training.png" in text:
        yield "code", PICTURES.rstrip("\n"), []
