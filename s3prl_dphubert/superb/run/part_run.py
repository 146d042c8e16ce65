"""One part of a task: a fold, a language, a speaker, or all of it. It is trained and evaluated on its own."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RunError
from ...utils.config_io import apply_changes
from ...utils.files import read_json, write_text
from ..metrics.parsers import Output
from ..recipe import Recipe
from ..tasks.spec import HIGHER, Part, Task
from . import fingerprints, selection
from .experiment import EVALUATED, LOG, Experiment, Where
from .plan import FILE, Plan
from .progress import Lines, took
from .workers import logs
from .workers.launcher import Launcher

Rate = float | None
TRAIN = "train"


@dataclass(frozen=True)
class Setting:
    """What all parts of a task share.

    Args:
        plan: of the run.
        recipe: of the task.
        measured: what is known of the upstream.
        launcher: starts s3prl.
        lines: for what is said meanwhile.
    """

    plan: Plan
    recipe: Recipe
    measured: dict[str, Any]
    launcher: Launcher
    lines: Lines

    @property
    def task(self) -> Task:
        """The task's row."""
        return self.recipe.task

    @property
    def folder(self) -> Path:
        """Of the task's results."""
        return self.plan.folder(self.task)

    def filled(self, place: str) -> Path | None:
        """A path of the recipe with its placeholder filled in, if there is one."""
        prepared = self.plan.prepared(self.recipe)
        return Path(self.recipe.fill(place, self.plan.data, prepared)) if place else None


@dataclass(frozen=True)
class Found:
    """What an evaluation left.

    Args:
        output: for the readers of metrics.
        note: which checkpoint or hidden state it is of, and why.
    """

    output: Output
    note: str


class PartRun:
    """Trains and evaluates one part; another call goes on from where the last one was.

    Args:
        setting: of its task.
        part: its row.
    """

    def __init__(self, setting: Setting, part: Part) -> None:
        self.setting, self.part, self.task = setting, part, setting.task
        self.folder = setting.folder / part.name

    def title(self, rate: Rate = None) -> str:
        """What lines call it."""
        words = (self.task.folder, self.part.name, "" if rate is None else f"lr {named(rate)}")
        return " ".join(word for word in words if word)

    def config(self, rate: Rate = None) -> dict[str, Any]:
        """What s3prl is configured with.

        Processes that train together take shares of the recipe's batch, where it can be divided.
        """
        plan, recipe = self.setting.plan, self.setting.recipe
        values = recipe.config(self.part.name, plan.data, plan.prepared(recipe))
        changes = [self.part.override.removeprefix("config.")] if self.part.override else []
        if rate is not None:
            changes.append(f"optimizer.lr={rate:.17f}")
        steps = values["runner"].get("gradient_accumulate_steps", 1)
        if self.task.best and plan.processes > 1 and steps % plan.processes == 0:
            changes.append(f"runner.gradient_accumulate_steps={steps // plan.processes}")
        return apply_changes(values, changes)

    def experiment(self, rate: Rate = None) -> Experiment:
        """Its training with the recipe's learning rate or another one."""
        plan, recipe, config = self.setting.plan, self.setting.recipe, self.config(rate)
        own = plan.prepared(recipe), recipe.folder.resolve()
        upstream = evaluating = plan.upstream
        if plan.cache is not None:
            upstream, evaluating = plan.cache.upstreams(plan.upstream, self.task, plan.out)
        return Experiment(
            folder=plan.training(self.task)
            / self.part.name
            / (TRAIN if rate is None else f"{TRAIN}-lr{named(rate)}"),
            downstream=self.task.downstream,
            config=config,
            upstream=upstream,
            evaluating=evaluating,
            launcher=self.setting.launcher,
            seed=plan.seed,
            processes=plan.processes if self.task.best else 1,
            lists=fingerprints.digests(config, own, [plan.data / each for each in recipe.needs.data]),
            borrowed=plan.trained is not None,
        )

    def train(self, where: Where, rate: Rate = None) -> None:
        """Train to the end, if there is anything to train."""
        if not self.task.best:
            return
        experiment, title, began = self.experiment(rate), self.title(rate), time.monotonic()
        if experiment.borrowed:
            experiment.borrow()
            return
        log = self.folder / f"{experiment.folder.name}.log"
        if not experiment.finished:
            self.setting.lines.say(title, f"trains, {experiment.steps} steps")
        watch = self.setting.lines.watch(title, "trains", log, logs.OVERALL)
        if experiment.train(log, where, watch):
            self.setting.lines.say(title, f"trained, {took(began)}")

    def compared(self, where: Where, rate: float) -> float:
        """What a finished training reached where learning rates are compared."""
        if self.task.many:
            found = self._candidates(where, rate)
            return found[selection.best(found, self._higher)]
        return selection.dev_score(self.experiment(rate))

    def evaluate(self, where: Where, rate: Rate = None) -> Found:
        """What the chosen checkpoint or hidden state gives."""
        if not self.task.best:
            return self._search(where)
        if self.task.many:
            return self._best_saved(where, rate)
        experiment = self.experiment(rate)
        checkpoint, note = selection.dev_best(self.task, experiment)
        return Found(self._evaluated(experiment, checkpoint, self.folder, where), note + self._lender())

    def _lender(self) -> str:
        """Whose training it is, if another run's."""
        trained = self.setting.plan.trained
        return f", trained by a run of {read_json(trained / FILE).get('upstream')}" if trained else ""

    def _evaluated(self, experiment: Experiment, checkpoint: Path, out: Path, where: Where) -> Output:
        lines, title, began = self.setting.lines, self.title(), time.monotonic()
        new = not experiment.evaluated(checkpoint, self.task.split, out)
        watch = lines.watch(title, f"evaluates {checkpoint.name}", out / LOG)
        found = experiment.evaluate(checkpoint, self.task.split, out, where, watch)
        if new:
            lines.say(title, f"evaluated {checkpoint.name}, {took(began)}")
        return self._with_reference(found)

    def _with_reference(self, output: Output) -> Output:
        reference = self.setting.filled(self.setting.recipe.needs.reference)
        return Output(output.text, output.folder, reference)

    # A task that is chosen among all saved checkpoints

    def _candidates(self, where: Where, rate: Rate) -> dict[Path, float]:
        """Every saved checkpoint -> what it gives on the test set, as s3prl's own script has it."""
        experiment, found = self.experiment(rate), {}
        for checkpoint in selection.saved(self.task, experiment):
            place = self._candidate(experiment, checkpoint)
            found[checkpoint] = self.task.metrics[0].read(
                self._evaluated(experiment, checkpoint, place, where)
            )
        return found

    def _candidate(self, experiment: Experiment, checkpoint: Path) -> Path:
        return self.folder / "candidates" / experiment.folder.name / checkpoint.stem

    def _best_saved(self, where: Where, rate: Rate) -> Found:
        found = self._candidates(where, rate)
        chosen = selection.best(found, self._higher)
        name = self.task.metrics[0].name
        note = f"{chosen.name}, best {name} of {len(found)} saved checkpoints {selection.ON_TEST}"
        return Found(self._take(self._candidate(self.experiment(rate), chosen)), note + self._lender())

    def _take(self, candidate: Path) -> Output:
        """Copy what the chosen candidate left to where the task's results are."""
        mark, told = self.folder / EVALUATED, read_json(candidate / EVALUATED)
        if read_json(mark) != told:
            mark.unlink(missing_ok=True)
            others = shutil.ignore_patterns(EVALUATED, "*.yaml")
            shutil.copytree(candidate, self.folder, ignore=others, dirs_exist_ok=True)
            write_text(mark, json.dumps(told, indent=1) + "\n")
        return self._with_reference(Output(logs.text(self.folder / LOG), self.folder))

    # A task without training

    def _search(self, where: Where) -> Found:
        """Try every hidden state on dev, evaluate the best one."""
        needs, lines, title = self.setting.recipe.needs, self.setting.lines, self.title()
        truth, began = self.setting.filled(needs.reference_dev), time.monotonic()
        if truth is None:
            raise RunError(f"{self.setting.recipe.folder}: reference_dev is missing, allowed: a path")
        experiment, scores = self.experiment(), {}
        for layer in range(self.setting.measured["layers"]):
            place = self.folder / "layers" / str(layer)
            watch = lines.watch(title, f"searches by hidden state {layer}", place / LOG)
            experiment.search(layer, "dev", place, where, watch)
            scores[layer] = selection.detection(place, truth)
        chosen = selection.best(scores, self._higher)
        new = not experiment.searched(chosen, self.task.split, self.folder)
        watch = lines.watch(title, f"evaluates hidden state {chosen}", self.folder / LOG)
        found = experiment.search(chosen, self.task.split, self.folder, where, watch)
        if new:
            lines.say(title, f"evaluated hidden state {chosen} of {len(scores)}, {took(began)}")
        listed = ", ".join(f"{layer}: {score:.2f}" for layer, score in scores.items())
        return Found(self._with_reference(found), f"hidden state {chosen}; MTWV x100 on dev: {listed}")

    @property
    def _higher(self) -> bool:
        return self.task.metrics[0].better == HIGHER


def named(rate: float) -> str:
    """A learning rate in few letters, ``1e-04``, that none other has."""
    short = f"{rate:.0e}"
    return short if float(short) == rate else f"{rate:g}"
