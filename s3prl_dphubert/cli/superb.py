"""Commands about SUPERB: ``superb score``, ``report``, ``submit``, ``check``, and ``free-superb``.

``superb run`` and ``status`` are in ``superb_run``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import superb_run

if TYPE_CHECKING:
    from ..superb.report.differences import Difference
    from ..superb.report.tables import Summary
    from ..superb.submission.archive import SubmissionChecks


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    superb = commands.add_parser("superb", help="runs, scores, reports and submissions")
    group = superb.add_subparsers(dest="superb_command", required=True, metavar="COMMAND")
    superb_run.add(group)

    score = group.add_parser("score", help="points per task and the SUPERB score of given results")
    score.set_defaults(run=_score)
    score.add_argument(
        "results", nargs="+", metavar="TASK=VALUE", help="in the leaderboard's units; sf=F1/CER"
    )

    report = group.add_parser("report", help="table and plot of finished tasks, from their score.json")
    report.set_defaults(run=_report)
    report.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="folders with score.json in them"
    )
    report.add_argument("--teacher", metavar="NAME", help="model of a run or a published row to compare with")
    report.add_argument("--out", type=Path, metavar="DIR", help="write report.md, .csv, .json, .png here")
    report.add_argument(
        "--benchmark",
        default="",
        metavar="NAME",
        help="results to report on, where there are several benchmarks'",
    )
    report.add_argument(
        "--chain",
        default="",
        metavar="NAMES",
        help="models from the worst to the best with commas between them, as random,early,late; a task that "
        "does not put them in order is not scored",
    )
    report.add_argument(
        "--against",
        metavar="NAME",
        help="list how all other models differ from this one, with 95 %% intervals over voices",
    )
    report.add_argument("--no-published", action="store_true", help="leave the published rows out")
    report.add_argument("--overwrite", action="store_true", help="replace reports that are there")

    _add_submission(group)
    _add_free_superb(commands)


def _add_submission(group: Any) -> None:
    submit = group.add_parser("submit", help="build and check predict.zip for the leaderboard")
    submit.set_defaults(run=_submit)
    submit.add_argument("folder", type=Path, metavar="DIR", help="folder of one upstream's tasks")
    submit.add_argument(
        "--out", type=Path, default=Path("predict.zip"), help="the archive (default predict.zip)"
    )
    submit.add_argument("--checkpoint", type=Path, help="fill stride, parameters and MACs in from this one")
    submit.add_argument("--name", default="", help="submitName, at most 60 characters")
    submit.add_argument("--description", default="", help="modelDesc, at most 300 characters")
    submit.add_argument("--url", default="", help="modelURL, on github.com")
    submit.add_argument("--corpus", default="", help="what the upstream was trained on")
    submit.add_argument(
        "--track", default="constrained", help="constrained, less constrained or unconstrained"
    )
    _add_checks(submit)
    submit.add_argument("--overwrite", action="store_true", help="replace an archive that is there")

    check = group.add_parser("check", help="check a predict.zip without unpacking it")
    check.set_defaults(run=_check)
    check.add_argument("archive", type=Path, help="the archive")
    check.add_argument("--checkpoint", type=Path, help="compare the frame shift with this one's")
    _add_checks(check)


def _add_checks(command: Any) -> None:
    command.add_argument("--any-count", action="store_true", help="accept other test sets than SUPERB's")
    command.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the corpora; compare names with their lists, too"
    )


def _add_free_superb(commands: Any) -> None:
    build = commands.add_parser(
        "free-superb", help="build a small SUPERB of real speech from Debian packages"
    )
    build.set_defaults(run=_free_superb)
    build.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the build, new or begun"
    )
    build.add_argument(
        "--debs", type=Path, metavar="DIR", help="take the .deb files from here instead of downloading them"
    )
    build.add_argument("--tasks", default="all", help="names with commas between them (default all)")
    unlabelled = (
        "also decode all packages (0.8 GB) and list speech to compress with, without that of the tests"
    )
    build.add_argument("--unlabelled", action="store_true", help=unlabelled)


def _score(arguments: argparse.Namespace) -> None:
    from ..superb.scoring.cli_values import hints, parse, points_table
    from ..superb.scoring.points import missing, score

    metrics = parse(arguments.results)
    for hint in hints(metrics):
        print(f"hint: {hint}", file=sys.stderr)
    print(points_table(metrics))
    total = score(metrics)
    if total is None:
        print(f"\nno SUPERB score: {', '.join(missing(metrics))} missing")
    else:
        print(f"\nSUPERB score {total:.0f} ({total:.2f})")


def _report(arguments: argparse.Namespace) -> None:
    from ..errors import ResultError
    from ..superb.report import tables, write
    from ..superb.report.collection import collect
    from ..superb.scoring import model_results, validity

    collection = collect(arguments.folders, arguments.benchmark, lambda model: not arguments.no_published)
    for line in collection.left_out:
        print(f"left out: {line}", file=sys.stderr)
    summary, runs = collection.summary, collection.summary.runs
    if arguments.chain:
        chain = validity.chain(arguments.chain.split(","), runs)
        verdicts = [validity.judge(task, chain) for task in summary.tasks()]
        summary = replace(summary, verdicts=verdicts)
    if arguments.against:
        summary = replace(summary, differences=_differences(summary, arguments.against))
    if summary.has_points:
        teacher = model_results.choose(arguments.teacher, runs) if arguments.teacher else None
        if teacher is not None and teacher not in summary.models:
            summary = replace(summary, others=(teacher,))
        summary = replace(summary, teacher=teacher)
    elif arguments.teacher:
        raise ResultError(
            f"--teacher counts points, which SUPERB's results have; these are of {summary.benchmark}"
        )
    if arguments.out is None:
        print(tables.markdown(summary), end="")
        return
    for path in write(summary, arguments.out, arguments.overwrite):
        print(path)


def _differences(summary: Summary, name: str) -> list[Difference]:
    """Return how all other own models differ from the one of that name."""
    from ..errors import ResultError
    from ..superb.report.differences import compare

    models = {model.name: model for model in summary.runs}
    if name not in models:
        raise ResultError(f"--against is {name!r}, allowed: {', '.join(models)}")
    others = [model for model in summary.runs if model.name != name]
    return [each for model in others for each in compare(model, models[name], summary.tasks())]


def _submit(arguments: argparse.Namespace) -> None:
    from ..superb.submission import archive, form

    costs: dict[str, Any] = form.fields_of_checkpoint(arguments.checkpoint) if arguments.checkpoint else {}
    filled = form.Form(
        submitName=arguments.name,
        modelURL=arguments.url,
        modelDesc=arguments.description,
        corpus=arguments.corpus,
        track=arguments.track,
        **costs,
    )
    checks = _checks(arguments, costs.get("stride"))
    report = archive.build(arguments.folder, arguments.out, checks, arguments.overwrite)
    print(f"{arguments.out}\n\n{report.text()}\n\n{filled.text()}")
    if filled.missing():
        print(f"\nstill to fill in: {', '.join(filled.missing())}")


def _check(arguments: argparse.Namespace) -> None:
    from ..errors import ResultError
    from ..superb.submission.archive import check
    from ..superb.submission.form import fields_of_checkpoint

    stride = fields_of_checkpoint(arguments.checkpoint)["stride"] if arguments.checkpoint else None
    report = check(arguments.archive, _checks(arguments, stride))
    print(report.text())
    if arguments.archive.suffix != ".zip":
        raise ResultError(f"{arguments.archive}: the site takes names that end in .zip only")
    report.raise_for_faults(arguments.archive)


def _checks(arguments: argparse.Namespace, stride: int | None) -> SubmissionChecks:
    """Return what a submission is compared with.

    Args:
        arguments: with ``any_count`` and ``data``.
        stride: of the upstream in ms, if known.
    """
    from ..constants import SAMPLE_RATE
    from ..errors import ConfigError
    from ..superb.submission.archive import SubmissionChecks

    if arguments.data is not None and not arguments.data.is_dir():
        raise ConfigError(f"--data: no such folder: {arguments.data}")
    shift = None if stride is None else stride * SAMPLE_RATE // 1000
    return SubmissionChecks(arguments.any_count, arguments.data, shift)


def _free_superb(arguments: argparse.Namespace) -> None:
    from ..free_superb.build import build

    build(arguments.out, arguments.tasks.split(","), arguments.debs, arguments.unlabelled)
    print(arguments.out / "README.md")
