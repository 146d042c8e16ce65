"""The whole page: sections in their order, through the template into one file."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..compression.run_record import RunRecord
from ..errors import RunError
from ..superb.report.collection import Collection
from ..utils.files import write_text
from ..version import __version__
from . import run_sections, score_sections
from .measured_speed import MeasuredSpeed

TEMPLATE, STYLE = "page.html", "page.css"


def render(
    runs: Sequence[RunRecord],
    collection: Collection | None = None,
    speed: MeasuredSpeed | None = None,
    title: str = "",
    command: str = "",
) -> str:
    """Return the page as HTML, which loads nothing from elsewhere and runs no script.

    Args:
        runs: one or more.
        collection: results of ``superb run``; without them the page says that they are missing.
        speed: measured times; without them likewise.
        title: heading; by default the name of the run, or the number of runs.
        command: that makes the page.
    """
    named = list(zip(unique_names(runs), runs, strict=True))
    sections = [
        run_sections.cost(named, speed),
        run_sections.units(named),
        run_sections.training(named),
        score_sections.scores(collection),
        score_sections.layer_weights(collection),
        run_sections.repetition(
            named, command, score_sections.commands(collection), score_sections.versions(collection)
        ),
    ]
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        title=title or (named[0][0] if len(runs) == 1 else f"{len(runs)} runs"),
        subtitle=_subtitle(runs),
        tiles=run_sections.tiles(named, speed),
        sections=sections,
        version=__version__,
        date=datetime.date.today().isoformat(),
    )


def check_target(target: Path, overwrite: bool) -> None:
    """Check that a page may be written, before any work is spent on it.

    Raises:
        RunError: the file exists, and ``overwrite`` is not set, or it is a folder.
    """
    if target.is_dir():
        raise RunError(f"--out is {target}, a folder, allowed: a file such as {target / 'report.html'}")
    if target.exists() and not overwrite:
        raise RunError(f"{target}: exists already; choose another --out or --overwrite")


def write(page: str, target: Path) -> None:
    """Write a page, which appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)


def unique_names(runs: Sequence[RunRecord]) -> list[str]:
    """Return the names of runs; those of one name are told apart by their paths."""
    counts = Counter(run.name for run in runs)
    return [run.name if counts[run.name] == 1 else str(run.folder) for run in runs]


def _subtitle(runs: Sequence[RunRecord]) -> str:
    teachers = ", ".join(dict.fromkeys(run.teacher for run in runs if run.teacher))
    states = ", ".join(dict.fromkeys(run.state for run in runs))
    return " · ".join(filter(None, (f"made from {teachers}" if teachers else "", states)))
