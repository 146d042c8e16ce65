"""Tables of a report on SUPERB as Markdown, CSV and plain values."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...utils import markdown as pages
from ..scoring import points
from ..scoring.model_results import MetricValue, ModelResults
from ..scoring.validity import Verdict
from ..tasks import all_tasks, core_tasks
from ..tasks.spec import SUPERB, Metric, SuperbTask
from .differences import Difference, column_heading
from .differences import table as difference_table

MetricColumn = tuple[SuperbTask, Metric]


@dataclass(frozen=True)
class Summary:
    """Models in a report.

    Args:
        runs: own models.
        others: published models to compare with.
        teacher: the model against which lost points are counted, if any.
        benchmark: what all results are of. Points, scores and ranks are SUPERB's only.
        remarks: how results were made in another way than the benchmark's.
        verdicts: whether tasks put models in order that must differ; empty if that was not checked.
        differences: of models, with their intervals.
    """

    runs: Sequence[ModelResults]
    others: Sequence[ModelResults] = ()
    teacher: ModelResults | None = None
    benchmark: str = SUPERB
    remarks: Sequence[str] = ()
    verdicts: Sequence[Verdict] = ()
    differences: Sequence[Difference] = ()

    @property
    def has_points(self) -> bool:
        """True if results are SUPERB's, whose reference points give points."""
        return self.benchmark == SUPERB

    @property
    def models(self) -> list[ModelResults]:
        """All models that are shown: own models, then published ones, the best first."""
        ordered = sorted(self.others, key=lambda model: -(model.score() or 0))
        named = {model.name for model in self.runs}
        return [*self.runs, *(model for model in ordered if model.name not in named)]

    def tasks(self) -> list[SuperbTask]:
        """Return the ten tasks of the score, if there is one, and all others that a run has results of."""
        always = core_tasks() if self.has_points else ()
        own = [task for task in all_tasks() if any(task.name in model.results for model in self.runs)]
        return [*always, *(task for task in own if task not in always)]

    def ranks(self) -> dict[str, float]:
        """Model name -> rank among all models that are shown."""
        models = self.models
        return dict(zip((m.name for m in models), points.ranks([m.means for m in models]), strict=True))

    def lost(self, model: ModelResults) -> dict[str, float]:
        """Return the points lost in each task against the teacher; negative where the model is better."""
        points_lost = {}
        for task in core_tasks():
            most, own = self.teacher.points(task) if self.teacher else None, model.points(task)
            if most is not None and own is not None:
                points_lost[task.name] = most - own
        return points_lost


def columns(summary: Summary) -> list[MetricColumn]:
    """Return the metrics that a report shows, in the order of its columns."""
    return [
        (task, metric)
        for task in summary.tasks()
        for metric in task.metrics
        if not metric.optional or any(metric.name in m.results.get(task.name, {}) for m in summary.runs)
    ]


def format_value(value: MetricValue | None) -> str:
    """Format a result: the mean, of several seeds the standard deviation and their number, standard error."""
    if value is None:
        return "–"
    spread = f" ± {value.spread:.2f} ({value.seeds})" if value.seeds > 1 else ""
    error = value.standard_error
    return f"{value.mean:.2f}{spread}" + (f", SE {error:.2f}" if error is not None else "")


def _whole(value: float) -> str:
    return f"{round(value)}"  # never "-0"


def _score(model: ModelResults) -> str:
    score, spread = model.score(), model.score_spread()
    return "–" if score is None else f"{score:.0f}" + (f" ± {spread:.0f}" if spread is not None else "")


def _size(model: ModelResults) -> list[str]:
    millions = "–" if model.parameters is None else f"{model.parameters / 1e6:.2f}"
    return [millions, "–" if model.macs is None else f"{model.macs / 1e9:.0f}"]


def _table(head: list[str], rows: list[list[str]]) -> str:
    return pages.table(head, ([pages.cell(name), *cells] for name, *cells in rows), rule=" --- ")


def markdown(summary: Summary) -> str:
    """Format the tables of results, points and lost points as Markdown."""
    shown, ranks = columns(summary), summary.ranks()
    head = ["model", "M params", "G MACs", *(column_heading(task, metric) for task, metric in shown)]
    head += ["score", "rank"] if summary.has_points else []
    rows = []
    for model in summary.models:
        cells = [format_value(model.results.get(task.name, {}).get(metric.name)) for task, metric in shown]
        name = f"**{model.name}**" if model in summary.runs else model.name
        total = [_score(model), f"{ranks[model.name]:.2f}"] if summary.has_points else []
        rows.append([name, *_size(model), *cells, *total])
    parts = [f"# {summary.benchmark}", _table(head, rows), "\n".join(notes(summary))]
    parts.append(validity_table(summary.verdicts))
    parts.append(f"## Differences\n\n{difference_table(summary.differences)}" if summary.differences else "")
    if summary.has_points:
        parts += _point_tables(summary)
    return "\n\n".join(part for part in parts if part) + "\n"


def validity_table(verdicts: Sequence[Verdict]) -> str:
    """Format which tasks count, and why; empty without verdicts."""
    if not verdicts:
        return ""
    rows = [[each.task.name, "yes" if each.scored else "**no**", each.reason] for each in verdicts]
    return f"## Validity\n\n{pages.table(['task', 'scored', 'in the order of the chain'], rows)}"


def _point_tables(summary: Summary) -> list[str]:
    """Return the tables of points, and of points lost against the teacher if there is one."""
    point_rows = [
        [
            model.name,
            *("–" if (p := model.points(task)) is None else f"{p:.0f}" for task in core_tasks()),
            _score(model),
        ]
        for model in summary.models
    ]
    parts = [
        "## Points per task",
        _table(["model", *(task.name for task in core_tasks()), "score"], point_rows),
    ]
    if summary.teacher is not None:
        rows = []
        for model in (model for model in summary.models if model is not summary.teacher):
            lost = summary.lost(model)
            total = _whole(sum(lost.values()) / len(core_tasks())) if len(lost) == len(core_tasks()) else "–"
            cells = [_whole(lost[task.name]) if task.name in lost else "–" for task in core_tasks()]
            rows.append([model.name, *cells, total])
        parts += [
            f"## Points lost against {summary.teacher.name}",
            _table(["model", *(task.name for task in core_tasks()), "score"], rows),
        ]
    return parts


def notes(summary: Summary) -> list[str]:
    """Return the sentences below the tables of a report."""
    lines = ["Own runs are bold; ± is the standard deviation over seeds (their number)."]
    if any(v.statistics for run in summary.runs for of in run.results.values() for v in of.values()):
        lines[0] += " SE is the standard error over the voices of the test set, and over seeds."
    if summary.has_points:
        lines[0] += (
            " The score is the mean over ten tasks of 1000 (x - FBANK) / (SOTA - FBANK); the rank counts the "
            "models shown here that are strictly worse."
        )
    else:
        lines.append(
            f"These results are of {summary.benchmark}; they do not compare with SUPERB's, published or own."
        )
    lines += summary.remarks
    for model in summary.runs if summary.has_points else ():
        missing = points.missing(model.means)
        if missing:
            lines.append(f"{model.name} has no score: {', '.join(missing)} missing.")
    sources = sorted({model.source for model in summary.models if model.source})
    if sources:
        lines.append(f"Published rows: {'; '.join(sources)}.")
    return lines


def csv_table(summary: Summary) -> str:
    """Format the results as CSV, one row a model; cells without a result are empty."""
    shown, ranks = columns(summary), summary.ranks()
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    names = [f"{task.name} {metric.name}" for task, metric in shown]
    spreads = [f"{name} {what}" for name in names for what in ("mean", "spread", "seeds", "standard error")]
    writer.writerow(
        ["model", "source", "benchmark", "parameters", "macs", *spreads, "score", "score spread", "rank"]
    )
    for model in summary.models:
        cells: list[Any] = []
        for task, metric in shown:
            value = model.results.get(task.name, {}).get(metric.name)
            known = [value.mean, value.spread, value.seeds] if value is not None else ["", "", ""]
            error = value.standard_error if value is not None else None
            cells += [*known, "" if error is None else error]
        tail = [model.score(), model.score_spread(), ranks[model.name]] if summary.has_points else [""] * 3
        size = [model.parameters, model.macs]
        writer.writerow([model.name, model.source, summary.benchmark, *size, *cells, *tail])
    return target.getvalue()


def to_dict(summary: Summary) -> dict[str, Any]:
    """Return everything in a report as plain values."""
    ranks = summary.ranks()
    return {
        "benchmark": summary.benchmark,
        "remarks": list(summary.remarks),
        "differences": [
            {
                "task": each.task.name,
                "metric": each.metric.name,
                "models": [each.first, each.second],
                **vars(each.estimate),
                "better": each.better or None,
            }
            for each in summary.differences
        ],
        "validity": [
            {"task": each.task.name, "scored": each.scored, "reason": each.reason}
            for each in summary.verdicts
        ],
        "teacher": summary.teacher.name if summary.teacher else None,
        "models": [
            {
                "name": model.name,
                "source": model.source or None,
                "parameters": model.parameters,
                "macs": model.macs,
                "results": {
                    task: {name: _plain(value) for name, value in of.items()}
                    for task, of in model.results.items()
                },
                **(_points(summary, model, ranks[model.name]) if summary.has_points else {}),
            }
            for model in summary.models
        ],
    }


def _plain(value: MetricValue) -> dict[str, Any]:
    named = {"mean": value.mean, "spread": value.spread, "seeds": value.seeds}
    return named if value.standard_error is None else {**named, "standard_error": value.standard_error}


def _points(summary: Summary, model: ModelResults, rank: float) -> dict[str, Any]:
    return {
        "points": {task.name: model.points(task) for task in core_tasks()},
        "missing": points.missing(model.means),
        "score": model.score(),
        "score_spread": model.score_spread(),
        "rank": rank,
        "lost": summary.lost(model) if summary.teacher else None,
    }
