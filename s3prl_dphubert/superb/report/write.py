"""Write a report on SUPERB as Markdown, CSV, JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import ResultError
from ...utils.files import write_text
from .tables import Summary, markdown, table, values

FILES = ("report.md", "report.csv", "report.json", "report.png")


def write(summary: Summary, folder: Path, overwrite: bool = False) -> list[Path]:
    """Write ``report.md``, ``.csv``, ``.json`` and ``.png``, each whole or not at all.

    Raises:
        ResultError: one is there already, and ``overwrite`` is not set.
    """
    from .report_plots import plot

    targets = [folder / name for name in FILES]
    there = [path.name for path in targets if path.exists()]
    if there and not overwrite:
        raise ResultError(f"{folder}: {', '.join(there)} exist already; choose another place or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    dumped = json.dumps(values(summary), indent=2, ensure_ascii=False) + "\n"
    for path, text in zip(targets, (markdown(summary), table(summary), dumped), strict=False):
        write_text(path, text)
    plot(summary, targets[-1])
    return targets
