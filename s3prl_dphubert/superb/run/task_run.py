"""One task of a run: preparation, its parts side by side, ``score.json``."""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from typing import Any

from ...errors import DataError, DPHubertError, RunError
from ...utils.files import write_text
from ...utils.locking import folder_lock
from ..scoring import score_file
from . import feature_cache, selection
from .experiment import EVALUATED, Where
from .part_run import Found, PartRun, Rate, Setting, named
from .progress import took
from .slots import Lanes
from .workers.launcher import StoppedError

FAILED, SWEEP, PREPARE = "failed.json", "sweep.json", "prepare.log"
PACKAGES = ("s3prl", "s3prl-dphubert", "torch", "torchaudio")


class TaskRun:
    """Takes one task as far as it gets; another call goes on from there.

    Args:
        setting: of the task.
        lanes: where jobs wait for a GPU or a processor.
    """

    def __init__(self, setting: Setting, lanes: Lanes) -> None:
        self.setting, self.lanes = setting, lanes
        self.plan, self.recipe, self.task = setting.plan, setting.recipe, setting.task
        self.folder, self.lines = setting.folder, setting.lines
        self.parts = [PartRun(setting, part) for part in self.task.parts]

    def run(self) -> dict[str, float]:
        """Metrics of the finished task.

        Raises:
            DPHubertError: what went wrong first; ``failed.json`` of the task or the part has it, too.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.folder):
            for old in self.folder.rglob(FAILED):
                old.unlink()
            guarded(self.folder, "preparation", self._prepare)
            self._announce()
            rates = self.plan.rates_of(self.recipe)
            rate = guarded(self.folder, "sweep", lambda: self._sweep(rates)) if rates else None
            found = self._finish(rate)
            used = rate if rates else self.recipe.rate
            return guarded(self.folder, "score", lambda: self._score(found, used))

    def _prepare(self) -> None:
        """Make what s3prl reads of the corpus; the steps know what they have made before."""
        if not self.recipe.needs.prepare:
            return
        told: dict[str, Any] = {"steps": self.recipe.needs.prepare, "data": str(self.plan.data)}
        told |= {"out": str(self.plan.prepared(self.recipe)), "config": self.parts[0].config()}
        log, began = self.folder / PREPARE, time.monotonic()
        watch = self.lines.watch(self.task.folder, "prepares", log)
        with self.lanes.preparing:
            self.setting.launcher.run("prepare", [json.dumps(told)], log, self.folder, None, watch)
        self.lines.say(self.task.folder, f"prepared, {took(began)}")

    def _announce(self) -> None:
        """Say what keeping hidden states takes, before any are kept."""
        cache = self.plan.cache
        if cache is None or feature_cache.remark(self.task):
            return
        try:
            taken = feature_cache.size(
                self.recipe, [part.config() for part in self.parts], self.setting.measured
            )
        except DataError as error:
            taken = str(error)
        self.lines.say(self.task.folder, f"hidden states to keep: {taken}, limit {cache.limit}")

    def _sweep(self, rates: tuple[float, ...]) -> float:
        """Train with every rate, and choose one for all parts by the mean of what each reached."""

        def train(part: PartRun, where: Where, rate: Rate) -> float:
            part.train(where, rate)
            return part.compared(where, float(rate or 0))

        jobs = {(rate, part): self._submit(part, train, rate) for rate in rates for part in self.parts}
        _wait(jobs.values())
        means = {}
        for rate in rates:
            found = [jobs[rate, part].result() for part in self.parts]
            means[rate] = sum(found) / len(found)
        chosen, on = selection.rate(self.task, means), selection.compared_on(self.task)
        told: dict[str, Any] = {"chosen": chosen, "compared": on}
        told["scores"] = {named(rate): score for rate, score in means.items()}
        write_text(self.folder / SWEEP, json.dumps(told, indent=2) + "\n")
        self.lines.say(self.task.folder, f"learning rate {named(chosen)}: {means[chosen]:.4g} {on}")
        return chosen

    def _finish(self, rate: Rate) -> dict[str, Found]:
        """Evaluate all parts side by side, trained before that unless a sweep has done it."""

        def finish(part: PartRun, where: Where, rate: Rate) -> Found:
            part.train(where, rate)
            return part.evaluate(where, rate)

        jobs = {part: self._submit(part, finish, rate) for part in self.parts}
        _wait(jobs.values())
        return {part.part.name: job.result() for part, job in jobs.items()}

    def _score(self, found: dict[str, Found], rate: Rate) -> dict[str, float]:
        """Read the metrics, and write ``score.json`` unless one is there that is of these evaluations."""
        metrics = self.task.read({name: each.output for name, each in found.items()})
        path = self.folder / score_file.FILE
        evaluated = [(part.folder / EVALUATED).stat().st_mtime_ns for part in self.parts]
        if not path.exists() or path.stat().st_mtime_ns < max(evaluated):
            score_file.write(self._record(metrics, found, rate), self.folder, overwrite=True)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        caution = f"  counts for nothing: {self.recipe.needs.caution}" if self.recipe.needs.caution else ""
        self.lines.say(self.task.folder, f"{shown}  {path}{caution}")
        return metrics

    def _record(self, metrics: dict[str, float], found: dict[str, Found], rate: Rate) -> score_file.Record:
        parts = {
            name: {
                metric.name: metric.read(each.output)
                for metric in self.task.metrics
                if metric.part in ("", name) and not metric.optional
            }
            for name, each in found.items()
            if name
        }
        return score_file.Record(
            task=self.task.name,
            upstream=self.plan.upstream.title,
            metrics=metrics,
            seed=self.plan.seed,
            learning_rate=rate,
            s3prl=metadata.version("s3prl"),
            date=datetime.datetime.now().isoformat(timespec="seconds"),
            command=self.plan.command,
            parts=parts,
            parameters=self.setting.measured.get("parameters"),
            macs=self.setting.measured.get("macs"),
            checkpoints={name or self.task.folder: each.note for name, each in found.items()},
            versions={
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in PACKAGES},
            },
            caution=self.recipe.needs.caution,
        )

    def _submit(self, part: PartRun, work: Callable[[PartRun, Where, Rate], Any], rate: Rate) -> Future[Any]:
        part.folder.mkdir(parents=True, exist_ok=True)
        title = part.title(rate)
        return self.lanes.submit(lambda where: guarded(part.folder, title, lambda: work(part, where, rate)))


def guarded(place: Path, what: str, work: Callable[[], Any]) -> Any:
    """Do something; note its failure where :mod:`.status` finds it, and whatever it was as a RunError.

    Raises:
        DPHubertError: it failed.
    """
    try:
        return work()
    except StoppedError:
        raise
    except Exception as error:
        mine = isinstance(error, DPHubertError)
        text = str(error) if mine else f"{type(error).__name__}: {error}"
        write_text(place / FAILED, json.dumps({"what": what, "error": text}) + "\n")
        if mine:
            raise
        raise RunError(f"{what}: {text}") from error


def _wait(jobs: Iterable[Future[Any]]) -> None:
    """Wait for the end of all, and raise what the first that failed did."""
    failed = [error for job in list(jobs) if (error := job.exception()) is not None]
    if failed:
        raise failed[0]
