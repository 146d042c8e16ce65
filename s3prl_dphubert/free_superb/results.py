"""The page of FreeSUPERB results, generated from the ``score.json`` files of its runs.

``python -m s3prl_dphubert.free_superb.results docs/results/free-superb`` fills in the numbers of the page
beside that folder and draws its plot. A result named "MODEL, VARIANT" is MODEL computed in another precision
or runtime, with the downstream models that were trained on MODEL's hidden states.

``page.yaml`` in the folder may name the two models that points are counted between, and models that have to
come out in their order, as ``chain: [random, early, late]``: a task that fails gives no points. Records of
the folders in ``probes`` come first on the page; models in ``compared`` are compared with the ``baseline``.
Those of the folder ``trials`` have a section of their own, where all are compared with ``trials_baseline``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import ConfigError
from ..superb.report import differences
from ..superb.report.differences import column_heading
from ..superb.report.tables import format_value, validity_table
from ..superb.scoring.model_results import ModelResults, from_records
from ..superb.scoring.relative_points import RelativePoints
from ..superb.scoring.score_file import collect
from ..superb.scoring.validity import Verdict, chain, judge
from ..superb.tasks import all_tasks
from ..superb.tasks.spec import SuperbTask
from ..utils import markdown
from ..utils.config_io import from_dict, read_yaml, type_faults
from ..utils.files import write_text
from ..utils.markdown import BEGIN, END
from .probed_models import ProbedModels

PAGE = "page.yaml"
PROBES_PICTURE = "free-superb-probes.png"
SEPARATOR = ", "
SMALLEST_SPAN = 5.0  # between the two, in percent: below it, one percent is worth more than 200 points


@dataclass(frozen=True)
class PageModels:
    """Content of ``page.yaml``.

    Args:
        floor: name of the model of 0 points.
        teacher: name of the model of 1000 points.
        chain: names of the models of the check of validity, the worst first; none for no check.
        probes: folders of records of probes, beside ``page.yaml``.
        probe_chain: the chain of models that the probes must rank.
        baseline: name of the model that others are compared with in the probes.
        compared: names of those others.
        trials: folder of records of probes of other recipes, beside ``page.yaml``; empty for none.
        trials_baseline: name of the model there that all others are compared with.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    floor: str = "fbank"
    teacher: str = "hubert_mini"
    chain: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    probe_chain: tuple[str, ...] = ()
    baseline: str = "distilhubert"
    compared: tuple[str, ...] = ()
    trials: str = ""
    trials_baseline: str = ""

    def __post_init__(self) -> None:
        ConfigError.raise_for("page", type_faults(self))


@dataclass(frozen=True)
class Results:
    """Results of all models on FreeSUPERB.

    Args:
        models: models with results, the floor and the teacher first.
        between: the two models that points are counted between.
        variants: models computed in another precision or runtime.
        firsts: name -> the model with the results of seed 0 alone.
        verdicts: of the tasks, if the folder names a chain of models for the check of validity.
        probed: models with probes, if there are any.
        trials: models of other recipes with probes, if there are any.
    """

    models: Sequence[ModelResults]
    between: RelativePoints
    variants: Sequence[ModelResults] = ()
    firsts: Mapping[str, ModelResults] = field(default_factory=dict)
    verdicts: Sequence[Verdict] = ()
    probed: ProbedModels | None = None
    trials: ProbedModels | None = None

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Collect the results below a folder.

        Raises:
            ResultError: there are none, or one cannot be used.
            ConfigError: those of the floor, the teacher or a model of the chain are missing.
        """
        records = collect([folder])
        models = {model.name: model for model in from_records(records)}
        firsts = {model.name: model for model in from_records(each for each in records if each.seed == 0)}
        page = from_dict(PageModels, read_yaml(folder / PAGE)) if (folder / PAGE).exists() else PageModels()
        if missing := [name for name in (page.floor, page.teacher) if name not in models]:
            raise ConfigError(f"{folder}: holds no results of {', '.join(missing)}")
        judged = chain(page.chain, list(models.values())) if page.chain else []
        verdicts = [judge(task, judged) for task in all_tasks() if judged and task.name in judged[-1].results]
        unscored = frozenset(verdict.task.name for verdict in verdicts if not verdict.scored)
        between = RelativePoints(models.pop(page.floor), models.pop(page.teacher), SMALLEST_SPAN, unscored)
        names = sorted(models)
        variants = [name for name in names if SEPARATOR in name]
        others = [models[name] for name in names if name not in (*variants, *page.chain)]
        shown = [between.zero, between.top, *others]
        probed = None
        if page.probes:
            folders = [folder / each for each in page.probes]
            probed = ProbedModels.read(folders, page.probe_chain, page.baseline, page.compared)
        trials = None
        if page.trials:
            trials = ProbedModels.read([folder / page.trials], (), page.trials_baseline, None)
        return cls(shown, between, [models[name] for name in variants], firsts, verdicts, probed, trials)

    @property
    def tasks(self) -> list[SuperbTask]:
        """Tasks that any model has results of, in SUPERB's order."""
        return [task for task in all_tasks() if any(task.name in model.results for model in self.models)]

    @property
    def others(self) -> list[ModelResults]:
        """All models but the two that points are counted between."""
        return list(self.models[2:])

    @property
    def shared(self) -> list[SuperbTask]:
        """Tasks in which every model has points."""
        return [
            task
            for task in self.tasks
            if all(self.between.points(model, task) is not None for model in self.models)
        ]


def numbers(results: Results) -> str:
    """Return the generated part of the page as Markdown: probes, metrics, points."""
    parts = [
        results.probed.section("Probes", PROBES_PICTURE) if results.probed else "",
        results.trials.section("Other recipes") if results.trials else "",
        "## Results",
        _metrics(results),
        "Mean ± standard deviation (number of seeds); without one, a single seed.",
        validity_table(results.verdicts),
        "## Points",
        "![Points per task](free-superb.png)",
        _points(results),
        *_remarks(results),
        *_intervals(results),
        *_variants(results),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _metrics(results: Results) -> str:
    rows = [
        ["parameters, M", *(_amount(model.parameters, 1e6, 3) for model in results.models)],
        ["MACs of SUPERB's 32 utterances, G", *(_amount(model.macs, 1e9, 1) for model in results.models)],
    ]
    for task in results.tasks:
        for metric in task.metrics:
            values = [model.results.get(task.name, {}).get(metric.name) for model in results.models]
            if any(values):
                rows.append([column_heading(task, metric), *map(format_value, values)])
    return markdown.table(["", *(markdown.cell(model.name) for model in results.models)], rows)


def _points(results: Results) -> str:
    tasks = [task for task in results.tasks if results.between.task(task) is not None]
    rows = [[task.name, *(_point(results, model, task) for model in results.models)] for task in tasks]
    shared = [
        [results.between.points(model, task) or 0.0 for task in results.shared] for model in results.models
    ]
    for name, middle in (("median", statistics.median), ("mean", statistics.fmean)):
        cells = [f"**{middle(points):.0f}**" if points else "–" for points in shared]
        rows.append([f"{name} of {len(results.shared)}", *cells])
    return markdown.table(["", *(markdown.cell(model.name) for model in results.models)], rows)


def _point(results: Results, model: ModelResults, task: SuperbTask) -> str:
    value = results.between.points(model, task)
    if value is None:
        return "–"
    spread = results.between.spread(model, task)
    return f"{value:.0f}" + (f" ± {spread:.0f}" if spread else "")


def _remarks(results: Results) -> list[str]:
    """Return one list of sentences that follow from the numbers, or none."""
    lines = [f"- {reason}" for task in results.tasks if (reason := _no_points(results.between, task))]
    for model in results.models:
        if absent := [task.name for task in results.tasks if task.name not in model.results]:
            lines.append(f"- {model.name} has no result yet of {', '.join(absent)}.")
    lines += _comparisons(results)
    return ["\n".join(lines)] if lines else []


def _no_points(between: RelativePoints, task: SuperbTask) -> str:
    """Say why a task that both reference models have results of gives no points; empty where it does."""
    if task.name in between.unscored:
        return f"{task.name} gives no points: it fails the check of validity."
    both = all(task.name in model.results for model in (between.zero, between.top))
    if not both or between.task(task) is not None:
        return ""
    if replace(between, smallest_span=0.0).task(task) is None:
        return f"{task.name} gives no points: the teacher is not better than {between.zero.name} there."
    spans = [
        f"{abs(high - low):.2f} in {metric.title}"
        for metric in between.metrics(task)
        if (low := between.zero.means[task.name].get(metric.name)) is not None
        and (high := between.top.means[task.name].get(metric.name)) is not None
    ]
    return (
        f"{task.name} gives no points: {between.zero.name} and the teacher differ by only "
        f"{' and '.join(spans)}, less than the {between.smallest_span:g} from which points are counted."
    )


def _comparisons(results: Results) -> list[str]:
    """Compare each two small models: in how many tasks one is ahead, and the median gap in points."""
    lines = []
    for index, one in enumerate(results.others):
        for other in results.others[index + 1 :]:
            gaps = {}
            for task in results.tasks:
                points = [results.between.points(model, task) for model in (one, other)]
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


def _intervals(results: Results) -> list[str]:
    """Return the table of differences between any two models but the floor, where predictions tell them."""
    models = [results.between.top, *results.others]
    pairs = [(one, other) for index, one in enumerate(models) for other in models[index + 1 :]]
    rows = [each for one, other in pairs for each in differences.compare(one, other, results.tasks)]
    if not rows:
        return []
    note = (
        "Paired bootstrap over the voices of the test sets. Where the interval holds 0, no model is better."
    )
    return ["## Differences", differences.table(rows), note]


def _variants(results: Results) -> list[str]:
    """Compare each model with its other precisions and runtimes, on seed 0."""
    parts = []
    for model in results.models:
        first = results.firsts.get(model.name, model)
        variants = [each for each in results.variants if each.name.startswith(model.name + SEPARATOR)]
        rows = []
        for task in results.tasks:
            if not any(task.name in each.results for each in variants):
                continue
            for metric in task.metrics:
                values = [each.means.get(task.name, {}).get(metric.name) for each in (first, *variants)]
                if values[0] is not None:
                    rows.append([column_heading(task, metric), *_differences(values[0], values[1:])])
        if rows:
            titles = [markdown.cell(each.name.partition(SEPARATOR)[2]) for each in variants]
            parts += [f"## {model.name} in other precisions", markdown.table(["", "fp32", *titles], rows)]
    return parts


def _differences(first: float, others: Sequence[float | None]) -> list[str]:
    cells = [f"{value:.2f} ({value - first:+.2f})" if value is not None else "–" for value in others]
    return [f"{first:.2f}", *cells]


def _amount(value: int | None, unit: float, digits: int) -> str:
    return f"{value / unit:.{digits}f}" if value else "–"


def main(argv: list[str] | None = None) -> None:
    """Bring the page beside a folder of results up to date."""
    from ..superb.report.relative_plot import plot

    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.free_superb.results", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds score.json files; the page is FOLDER.md")
    folder = parser.parse_args(argv).folder
    results, page = Results.read(folder), folder.with_suffix(".md")
    text = markdown.fill(page.read_text(encoding="utf8"), BEGIN, END, numbers(results), str(page))
    plot(results.between, results.others, results.tasks, folder.with_suffix(".png"))
    if results.probed and results.probed.differences:
        results.probed.draw(folder.with_name(PROBES_PICTURE))
    write_text(page, text)
    print(page)


if __name__ == "__main__":
    main()
