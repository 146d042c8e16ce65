"""The page of results on mini-SUPERB, made from the ``score.json`` that its runs left.

``python -m s3prl_dphubert.mini.results docs/results/mini-superb`` fills in the numbers of
``docs/results/mini-superb.md`` and draws ``docs/results/mini-superb.png``. A result of "MODEL, WHAT" is one of MODEL computed in another way, such as in int8, with
the downstream models that MODEL's hidden states trained.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from ..superb.report.tables import heading, shown
from ..superb.scoring.model_results import Model, from_records
from ..superb.scoring.relative_points import Between
from ..superb.scoring.score_file import collect
from ..superb.tasks.spec import Task
from ..superb.tasks.table import TASKS
from ..utils import markdown
from ..utils.files import write_text
from ..utils.markdown import BEGIN, END

ZERO, TOP = "fbank", "hubert_nano"
SEPARATOR = ", "


@dataclass(frozen=True)
class Results:
    """What there is so far.

    Args:
        models: with results, ``fbank`` and the teacher first.
        between: these two.
        variants: what is one of the models computed in another way.
        firsts: name -> the model with the results of seed 0 alone.
    """

    models: Sequence[Model]
    between: Between
    variants: Sequence[Model] = ()
    firsts: Mapping[str, Model] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Results:
        """The results below a folder.

        Raises:
            ResultError: there are none, or one cannot be used.
            ConfigError: those of fbank or of the teacher are missing.
        """
        records = collect([folder])
        models = {model.name: model for model in from_records(records)}
        firsts = {model.name: model for model in from_records(each for each in records if each.seed == 0)}
        if missing := [name for name in (ZERO, TOP) if name not in models]:
            raise ConfigError(f"{folder}: holds no results of {', '.join(missing)}")
        between = Between(models.pop(ZERO), models.pop(TOP))
        names = sorted(models)
        variants = [name for name in names if SEPARATOR in name]
        others = [models[name] for name in names if name not in variants]
        chosen = [between.zero, between.top, *others]
        return cls(chosen, between, [models[name] for name in variants], firsts)

    @property
    def tasks(self) -> list[Task]:
        """Those that any model has results of, in SUPERB's order."""
        return [task for task in TASKS if any(task.name in model.results for model in self.models)]

    @property
    def others(self) -> list[Model]:
        """All but the two that points are counted between."""
        return list(self.models[2:])

    @property
    def shared(self) -> list[Task]:
        """Tasks in which every model has points."""
        return [
            task
            for task in self.tasks
            if all(self.between.points(model, task) is not None for model in self.models)
        ]


def numbers(found: Results) -> str:
    """Everything on the page that is a number, as Markdown."""
    parts = [
        "## Results",
        _results(found),
        "Mean ± standard deviation (number of seeds); without one, seed 0 alone.",
        "![Points per task](results.png)",
        "## Points",
        _points(found),
        *_remarks(found),
        *_variants(found),
    ]
    return "\n\n".join(parts) + "\n"


def _results(found: Results) -> str:
    rows = [
        ["parameters, M", *(_amount(model.parameters, 1e6, 3) for model in found.models)],
        ["MACs of SUPERB's 32 utterances, G", *(_amount(model.macs, 1e9, 1) for model in found.models)],
    ]
    for task in found.tasks:
        for metric in task.metrics:
            values = [model.results.get(task.name, {}).get(metric.name) for model in found.models]
            if any(values):
                rows.append([heading(task, metric), *map(shown, values)])
    return markdown.table(["", *(markdown.cell(model.name) for model in found.models)], rows)


def _points(found: Results) -> str:
    rows = [[task.name, *(_point(found, model, task) for model in found.models)] for task in found.tasks]
    shared = [[found.between.points(model, task) or 0.0 for task in found.shared] for model in found.models]
    for name, middle in (("median", statistics.median), ("mean", statistics.fmean)):
        cells = [f"**{middle(points):.0f}**" if points else "–" for points in shared]
        rows.append([f"{name} of {len(found.shared)}", *cells])
    return markdown.table(["", *(markdown.cell(model.name) for model in found.models)], rows)


def _point(found: Results, model: Model, task: Task) -> str:
    value = found.between.points(model, task)
    if value is None:
        return "–"
    spread = found.between.spread(model, task)
    return f"{value:.0f}" + (f" ± {spread:.0f}" if spread else "")


def _remarks(found: Results) -> list[str]:
    """Sentences that follow from the numbers, and what is missing."""
    lines = []
    for task in found.tasks:
        both = all(task.name in model.results for model in (found.between.zero, found.between.top))
        if both and found.between.task(task) is None:
            lines.append(f"- {task.name} gives no points: the teacher is not better than {ZERO} there.")
    for model in found.models:
        if absent := [task.name for task in found.tasks if task.name not in model.results]:
            lines.append(f"- {model.name} has no result yet of {', '.join(absent)}.")
    lines += _comparisons(found)
    return ["\n".join(lines)] if lines else []


def _comparisons(found: Results) -> list[str]:
    """Who is ahead of whom in how many tasks, and by how many points in the middle."""
    lines = []
    for index, one in enumerate(found.others):
        for other in found.others[index + 1 :]:
            gaps = {}
            for task in found.tasks:
                points = [found.between.points(model, task) for model in (one, other)]
                if points[0] is not None and points[1] is not None:
                    gaps[task.name] = points[0] - points[1]
            if gaps:
                ahead = [name for name, gap in gaps.items() if gap > 0]
                lines.append(
                    f"- {one.name} is ahead of {other.name} in {len(ahead)} of {len(gaps)} tasks"
                    f"{f' ({listed})' if (listed := ', '.join(ahead)) else ''}; median difference "
                    f"{statistics.median(gaps.values()):+.0f} points."
                )
    return lines


def _variants(found: Results) -> list[str]:
    """Each model that was computed in other ways, with the differences that made, of seed 0."""
    parts = []
    for model in found.models:
        first = found.firsts.get(model.name, model)
        own = [each for each in found.variants if each.name.startswith(model.name + SEPARATOR)]
        tasks = [task for task in found.tasks if any(task.name in each.results for each in own)]
        rows = []
        for task in tasks:
            for metric in task.metrics:
                values = [each.means.get(task.name, {}).get(metric.name) for each in (first, *own)]
                if values[0] is not None:
                    rows.append([heading(task, metric), *_differences(values[0], values[1:])])
        if rows:
            titles = [markdown.cell(each.name.partition(SEPARATOR)[2]) for each in own]
            parts += [f"## {model.name} in other precisions", markdown.table(["", "fp32", *titles], rows)]
    return parts


def _differences(first: float, others: Sequence[float | None]) -> list[str]:
    shown = [f"{value:.2f} ({value - first:+.2f})" if value is not None else "–" for value in others]
    return [f"{first:.2f}", *shown]


def _amount(value: int | None, unit: float, digits: int) -> str:
    return f"{value / unit:.{digits}f}" if value else "–"


def main(argv: list[str] | None = None) -> None:
    """Bring the page beside a folder of results up to date."""
    from ..superb.report.relative_plot import plot

    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.mini.results", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds score.json files; the page is FOLDER.md")
    folder = parser.parse_args(argv).folder
    found, page = Results.read(folder), folder.with_suffix(".md")
    text = markdown.fill(page.read_text(encoding="utf8"), BEGIN, END, numbers(found), str(page))
    plot(found.between, found.others, found.tasks, folder.with_suffix(".png"))
    write_text(page, text)
    print(page)


if __name__ == "__main__":
    main()
