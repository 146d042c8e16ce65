"""Reports on SUPERB: tables and plots of finished tasks, made of their ``score.json``."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import ResultError
from ...utils.files import write_text
from .tables import Summary, csv_table, markdown, to_dict

FILES = ("report.md", "report.csv", "report.json", "report.png")


def write(summary: Summary, folder: Path, overwrite: bool = False) -> list[Path]:
    """Write ``report.md``, ``.csv``, ``.json`` and, if there are points, ``.png``; each whole or not at all.

    Raises:
        ResultError: one is there already, and ``overwrite`` is not set.
    """
    from .report_plots import plot

    targets = [folder / name for name in (FILES if summary.has_points else FILES[:-1])]
    existing = [path.name for path in targets if path.exists()]
    if existing and not overwrite:
        raise ResultError(
            f"{folder}: {', '.join(existing)} exist already; choose another folder or --overwrite"
        )
    folder.mkdir(parents=True, exist_ok=True)
    dumped = json.dumps(to_dict(summary), indent=2, ensure_ascii=False) + "\n"
    for path, text in zip(targets, (markdown(summary), csv_table(summary), dumped), strict=False):
        write_text(path, text)
    if summary.has_points:
        plot(summary, targets[-1])
    else:
        (folder / FILES[-1]).unlink(missing_ok=True)  # of an earlier report
    return targets
