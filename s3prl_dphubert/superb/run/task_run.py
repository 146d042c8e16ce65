"""One task of a run: preparation, its parts side by side, ``score.json``."""

from __future__ import annotations

import datetime
import functools
import json
import math
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ...errors import DataError, DPHubertError, RunError
from ...utils.environment import package_version, s3prl_version
from ...utils.files import write_text
from ...utils.locking import folder_lock
from ..scoring import score_file, stored_statistics
from ..scoring.uncertainty import estimate
from . import corpus, feature_cache, selection
from .part_run import PartResult, PartRun, Rate, TaskContext
from .progress import elapsed
from .run_files import EVALUATED, PREPARE_LOG, SWEEP, format_rate
from .slots import Gate, Slot, SlotPool
from .workers.launcher import StoppedError

PACKAGES = ("s3prl", "s3prl-dphubert", "torch", "torchaudio")


class TaskRun:
    """Takes one task as far as it gets; another call resumes from there.

    Args:
        context: of the task.
        slots: where jobs wait for a GPU or a processor.
        checked: opens when all tasks are prepared and their audio was checked; nothing trains before.
    """

    def __init__(self, context: TaskContext, slots: SlotPool, checked: Gate) -> None:
        self.context, self.slots, self.checked = context, slots, checked
        self.plan, self.recipe, self.task = context.plan, context.recipe, context.task
        self.folder, self.reporter = context.folder, context.reporter
        self.deviations: tuple[str, ...] = ()
        self.parts = [PartRun(context, part) for part in self.task.parts]

    def run(self) -> dict[str, float]:
        """Return the metrics of the finished task.

        Raises:
            DPHubertError: the first failure, which ``failed.json`` of the task or the part holds, too.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.folder):
            try:
                for old in self.folder.rglob(score_file.FAILED):
                    old.unlink()
                guarded(self.folder, "preparation", self._prepare)
                guarded(self.folder, "check of the audio", self._check_audio)
            finally:
                self.checked.arrive()
            self.checked.wait()
            self._report_cache_size()
            rates = self.plan.rates_of(self.recipe)
            if rates:
                rate: Rate = guarded(self.folder, "sweep", lambda: self._sweep(rates))
            else:
                rate = self.plan.trained_rate(self.task)
            results = self._train_and_evaluate(rate)
            used = self.recipe.rate if rate is None else rate
            return guarded(self.folder, "score", lambda: self._score(results, used))

    def _prepare(self) -> None:
        """Run the recipe's steps of preparation, each of which returns at once if it is done."""
        if not self.recipe.needs.prepare:
            return
        request = {
            "steps": self.recipe.needs.prepare,
            "data": str(self.plan.data),
            "out": str(self.plan.prepared(self.recipe)),
            "config": self.parts[0].config(),
        }
        log, began = self.folder / PREPARE_LOG, time.monotonic()
        watch = self.reporter.watch(self.task.folder, "prepares", log)
        with self.slots.preparing:
            self.context.launcher.run("prepare", [json.dumps(request)], log, self.folder, None, watch)
        self.reporter.say(self.task.folder, f"prepared, {elapsed(began)}")

    def _check_audio(self) -> None:
        checks = [check for part in self.parts if (check := part.check_corpus()) is not None]
        self.deviations = tuple(dict.fromkeys(text for check in checks for text in check.deviations))
        if self.deviations and not self.plan.any_count:
            raise DataError(f"{'; '.join(self.deviations)}; {corpus.ANY_COUNT}")

    @property
    def caution(self) -> str:
        """Reason for which the result is excluded from scores and reports; empty if there is none."""
        return "; ".join(filter(None, (self.recipe.needs.caution, *self.deviations)))

    def _report_cache_size(self) -> None:
        """Report the size of the hidden states before any are kept."""
        cache = self.plan.cache
        if cache is None or feature_cache.refusal(self.task):
            return
        configs = [part.config() for part in self.parts]
        try:
            size = feature_cache.describe_size(self.recipe, configs, self.context.measured)
        except DataError as error:
            size = str(error)
        self.reporter.say(self.task.folder, f"hidden states to keep: {size}, limit {cache.limit}")

    def _sweep(self, rates: tuple[float, ...]) -> float:
        """Train with every rate, first for a while if the plan says so, and return the best on dev."""
        self.reporter.say(self.task.folder, self.plan.describe_sweep(self.recipe))
        values: dict[str, Any] = {}
        if steps := self.plan.short_steps(self.recipe):
            means = self._sweep_scores(rates, short=True)
            rates = tuple(selection.rates(self.task, means, selection.FINALISTS))
            values["short"] = {"steps": steps, "scores": _by_name(means)}
        means = self._sweep_scores(rates, short=False)
        (best,) = selection.rates(self.task, means)
        values = {"chosen": best, "compared": selection.ON_DEV, "scores": _by_name(means), **values}
        write_text(self.folder / SWEEP, json.dumps(values, indent=2) + "\n")
        text = f"learning rate {format_rate(best)}: {means[best]:.4g} {selection.ON_DEV}"
        self.reporter.say(self.task.folder, text)
        return best

    def _sweep_scores(self, rates: tuple[float, ...], short: bool) -> dict[float, float]:
        """Train with every rate, and return the mean score of all parts of each."""

        def train(part: PartRun, slot: Slot, rate: Rate) -> float:
            part.train(slot, rate, short)
            return part.sweep_score(float(rate or 0), short)

        jobs = {(rate, part): self._submit(part, train, rate) for rate in rates for part in self.parts}
        _wait(jobs.values())
        count = len(self.parts)
        return {rate: sum(jobs[rate, part].result() for part in self.parts) / count for rate in rates}

    def _train_and_evaluate(self, rate: Rate) -> dict[str, PartResult]:
        """Return part -> result; parts run side by side, and a sweep has trained them already.

        Checkpoints that are compared with each other are evaluated on all slots, before the best is taken.
        """
        if self.task.tries_checkpoints:
            _wait([self._submit(part, PartRun.train, rate) for part in self.parts])
            tried = [(part, checkpoint) for part in self.parts for checkpoint in part.candidates(rate)]
            evaluations = [
                self._submit(part, functools.partial(PartRun.evaluate_candidate, checkpoint=path), rate)
                for part, path in tried
            ]
            _wait(evaluations)

        def train_and_evaluate(part: PartRun, slot: Slot, rate: Rate) -> PartResult:
            part.train(slot, rate)
            return part.evaluate(slot, rate)

        jobs = {part: self._submit(part, train_and_evaluate, rate) for part in self.parts}
        _wait(jobs.values())
        return {part.part.name: job.result() for part, job in jobs.items()}

    def _score(self, results: dict[str, PartResult], rate: Rate) -> dict[str, float]:
        """Read the metrics, and write ``score.json`` unless it is newer than the evaluations."""
        outputs = {name: result.output for name, result in results.items()}
        metrics = self.task.read(outputs, self.recipe.needs.extra_metrics)
        path = self.folder / score_file.FILE
        evaluated = [(part.folder / EVALUATED).stat().st_mtime_ns for part in self.parts]
        if not path.exists() or path.stat().st_mtime_ns < max(evaluated):
            score_file.write(self._record(metrics, results, rate), self.folder, overwrite=True)
        text = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        excluded = f"  excluded from the score: {self.caution}" if self.caution else ""
        self.reporter.say(self.task.folder, f"{text}  {path}{excluded}")
        return metrics

    def _record(
        self, metrics: dict[str, float], results: dict[str, PartResult], rate: Rate
    ) -> score_file.ScoreRecord:
        outputs = {name: result.output for name, result in results.items()}
        statistics = self.task.statistics(outputs, self.recipe.needs.extra_metrics)
        errors = {name: estimate(each).standard_error for name, each in statistics.items()}
        errors = {name: error for name, error in errors.items() if math.isfinite(error)}
        parts = {
            name: {
                metric.name: metric.read(result.output)
                for metric in self.task.metrics
                if metric.part in ("", name) and not (metric.optional or metric.extra)
            }
            for name, result in results.items()
            if name
        }
        return score_file.ScoreRecord(
            task=self.task.name,
            upstream=self.plan.upstream.title,
            metrics=metrics,
            seed=self.plan.seed,
            learning_rate=rate,
            s3prl=s3prl_version(),
            date=datetime.datetime.now().isoformat(timespec="seconds"),
            command=self.plan.command,
            parts=parts,
            parameters=self.context.measured.get("parameters"),
            macs=self.context.measured.get("macs"),
            checkpoints={name or self.task.folder: result.note for name, result in results.items()},
            versions={
                "python": platform.python_version(),
                **{name: package_version(name) for name in PACKAGES},
            },
            caution=self.caution,
            benchmark=self.recipe.needs.benchmark,
            changes=(*self.recipe.changes, *self._batch_change()),
            steps=self.parts[0].config()["runner"]["total_steps"] if self.task.trained else None,
            items=self.task.count_items(self.folder),
            processes=self.plan.processes if self.task.trained else 1,
            standard_errors=errors,
            layer_weights={
                name or self.task.folder: result.layer_weights
                for name, result in results.items()
                if result.layer_weights
            },
            statistics={name: stored_statistics.to_plain(each) for name, each in statistics.items()},
        )

    def _batch_change(self) -> list[str]:
        """Describe the larger batch of processes that cannot share the recipe's; nothing if they can."""
        number = self.plan.processes
        return [] if self.recipe.can_share_batch(number) else [f"{number} processes with a batch each"]

    def _submit(self, part: PartRun, job: Callable[[PartRun, Slot, Rate], Any], rate: Rate) -> Future[Any]:
        part.folder.mkdir(parents=True, exist_ok=True)
        title = part.title(rate)
        return self.slots.submit(lambda slot: guarded(part.folder, title, lambda: job(part, slot, rate)))


def guarded(folder: Path, what: str, job: Callable[[], Any]) -> Any:
    """Call a function and return its result; record its failure in ``failed.json``, for :mod:`.status`.

    Raises:
        DPHubertError: it failed; errors of other kinds become a RunError.
    """
    try:
        return job()
    except StoppedError:
        raise
    except Exception as error:
        expected = isinstance(error, DPHubertError)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        write_text(folder / score_file.FAILED, json.dumps({"what": what, "error": text}) + "\n")
        if expected:
            raise
        raise RunError(f"{what}: {text}") from error


def _by_name(scores: dict[float, float]) -> dict[str, float]:
    return {format_rate(rate): score for rate, score in scores.items()}


def _wait(jobs: Iterable[Future[Any]]) -> None:
    """Wait for the end of all jobs, and raise the error of the first that failed."""
    errors = [error for job in list(jobs) if (error := job.exception()) is not None]
    if errors:
        raise errors[0]
