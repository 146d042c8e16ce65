"""One part of a task, such as a fold, a language or a speaker: trained and evaluated on its own."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RunError
from ...utils.files import write_text
from ...utils.readers import read_record
from ..metrics.parsers import Output
from ..recipe import TaskRecipe
from ..tasks.spec import HIGHER, SuperbTask, TaskPart
from . import corpus, fingerprints, selection
from .experiment import Experiment, layer_weights
from .plan import RunPlan
from .progress import Reporter, elapsed
from .run_files import EVALUATE_LOG, EVALUATED, RUN, format_rate, training_name
from .slots import Slot
from .workers import logs
from .workers.launcher import Launcher

OUT_OF_MEMORY = "[Runner] - CUDA out of memory at step"  # s3prl prints it and leaves the batch out
Rate = float | None
"""Learning rate; ``None`` for that of the recipe."""


@dataclass(frozen=True)
class TaskContext:
    """Everything that the parts of a task share.

    Args:
        plan: of the run.
        recipe: of the task.
        measured: result of :meth:`.UpstreamSpec.measured`.
        launcher: starts s3prl.
        reporter: of the progress.
    """

    plan: RunPlan
    recipe: TaskRecipe
    measured: dict[str, Any]
    launcher: Launcher
    reporter: Reporter

    @property
    def task(self) -> SuperbTask:
        """The task's row."""
        return self.recipe.task

    @property
    def folder(self) -> Path:
        """Folder of the task's results."""
        return self.plan.results(self.task)

    def filled(self, path: str) -> Path | None:
        """Fill in the placeholder of a path in the recipe; return ``None`` for an empty one."""
        prepared = self.plan.prepared(self.recipe)
        return Path(self.recipe.fill(path, self.plan.data, prepared)) if path else None


@dataclass(frozen=True)
class PartResult:
    """Result of a part's evaluation.

    Args:
        output: for the parsers of metrics.
        note: names the checkpoint or hidden state, and why it was chosen.
        layer_weights: of the hidden states (L + 1) in that checkpoint; empty if it has none.
    """

    output: Output
    note: str
    layer_weights: tuple[float, ...] = ()


class PartRun:
    """Trains and evaluates one part; another call resumes where the last one was.

    Args:
        context: of the task.
        part: its row.
    """

    def __init__(self, context: TaskContext, part: TaskPart) -> None:
        self.context, self.part, self.task = context, part, context.task
        self.folder = context.folder / part.name
        self.corpus: corpus.CorpusCheck | None = None

    def title(self, rate: Rate = None, short: bool = False) -> str:
        """Return the name of the part in messages."""
        words = (
            self.task.folder,
            self.part.name,
            "" if rate is None else f"lr {format_rate(rate)}",
            "short" if short else "",
        )
        return " ".join(word for word in words if word)

    def config(self, rate: Rate = None, short: bool = False) -> dict[str, Any]:
        """Return s3prl's configuration."""
        plan, recipe = self.context.plan, self.context.recipe
        template, slots = plan.template(recipe, self.part, rate, short), len(plan.slots)
        config = recipe.fill(template, plan.data, plan.prepared(recipe))
        expert = config["downstream_expert"]
        if slots > 1 and "max_workers" in expert and expert["max_workers"] is None:  # else all processors
            expert["max_workers"] = max(1, (os.cpu_count() or 1) // slots)
        return config

    def check_corpus(self) -> corpus.CorpusCheck | None:
        """Check the audio of the prepared part; results depend on it from then on.

        Raises:
            DataError: it cannot be used.
        """
        if self.task.audio is not None:
            self.corpus = corpus.check(self.task, self.config(), self.context.recipe.needs.counts)
        return self.corpus

    def experiment(self, rate: Rate = None, short: bool = False) -> Experiment:
        """Return the training of this part."""
        plan, recipe, config = self.context.plan, self.context.recipe, self.config(rate, short)
        own_folders = plan.prepared(recipe), recipe.folder.resolve()
        upstream = evaluating = plan.upstream
        if plan.cache is not None:
            upstream, evaluating = plan.cache.upstreams(plan.upstream, self.task, plan.out)
        return Experiment(
            folder=plan.trainings(self.task) / self.part.name / training_name(rate, short),
            downstream=self.task.downstream,
            config=config,
            template=plan.template(recipe, self.part, rate, short),
            upstream=upstream,
            evaluating=evaluating,
            launcher=self.context.launcher,
            seed=plan.seed,
            processes=plan.processes if self.task.trained else 1,
            lists=fingerprints.digests(
                config, own_folders, [plan.data / each for each in recipe.needs.data], plan.places(recipe)
            ),
            audio=self.corpus.key if self.corpus else {},
            borrowed=plan.trained is not None,
        )

    def train(self, slot: Slot, rate: Rate = None, short: bool = False) -> None:
        """Train to the end, if the task is trained."""
        if not self.task.trained:
            return
        experiment, title, began = self.experiment(rate, short), self.title(rate, short), time.monotonic()
        if experiment.borrowed:
            experiment.check_borrowed()
            return
        reporter, log = self.context.reporter, self.folder / f"{experiment.folder.name}.log"
        if not experiment.finished:
            reporter.say(title, f"trains, {experiment.steps} steps")
        watch = reporter.watch(title, "trains", log, logs.OVERALL)
        if experiment.train(log, slot, watch):
            skipped = logs.text(log).count(OUT_OF_MEMORY)
            text = f", {skipped} batches left out for lack of GPU memory" if skipped else ""
            reporter.say(title, f"trained, {elapsed(began)}{text}")

    def sweep_score(self, rate: float, short: bool) -> float:
        """Return the score of a finished training on the development set."""
        return selection.dev_score(self.experiment(rate, short))

    def evaluate(self, slot: Slot, rate: Rate = None) -> PartResult:
        """Evaluate the checkpoint or hidden state that counts."""
        if not self.task.trained:
            return self._evaluate_best_layer(slot)
        if self.task.tries_checkpoints:
            return self._evaluate_best_saved(slot, rate)
        experiment = self.experiment(rate)
        checkpoint, note = selection.dev_best(self.task, experiment)
        output = self._evaluate_checkpoint(experiment, checkpoint, self.folder, slot)
        return PartResult(output, note + self._borrowed_note(), layer_weights(checkpoint))

    @property
    def _higher(self) -> bool:
        return self.task.metrics[0].better == HIGHER

    def _borrowed_note(self) -> str:
        trained = self.context.plan.trained
        return f", trained by a run of {read_record(trained / RUN).get('upstream')}" if trained else ""

    def _evaluate_checkpoint(self, experiment: Experiment, checkpoint: Path, out: Path, slot: Slot) -> Output:
        reporter, title, began = self.context.reporter, self.title(), time.monotonic()
        new = not experiment.is_evaluated(checkpoint, self.task.split, out)
        watch = reporter.watch(title, f"evaluates {checkpoint.name}", out / EVALUATE_LOG)
        output = experiment.evaluate(checkpoint, self.task.split, out, slot, watch)
        if new:
            reporter.say(title, f"evaluated {checkpoint.name}, {elapsed(began)}")
        return self._with_reference(output)

    def _with_reference(self, output: Output) -> Output:
        return Output(output.text, output.folder, self.context.filled(self.context.recipe.needs.reference))

    # A task whose best checkpoint is found among all that were saved

    def candidates(self, rate: Rate = None) -> list[Path]:
        """Return the checkpoints of a finished training that are compared on the test set."""
        return selection.saved(self.task, self.experiment(rate))

    def evaluate_candidate(self, slot: Slot, rate: Rate, checkpoint: Path) -> float:
        """Return the score of a checkpoint on the test set, by which s3prl's own script compares them."""
        experiment = self.experiment(rate)
        out = self._candidate_folder(experiment, checkpoint)
        return self.task.metrics[0].read(self._evaluate_checkpoint(experiment, checkpoint, out, slot))

    def _candidate_folder(self, experiment: Experiment, checkpoint: Path) -> Path:
        return self.folder / "candidates" / experiment.folder.name / checkpoint.stem

    def _evaluate_best_saved(self, slot: Slot, rate: Rate) -> PartResult:
        scores = {path: self.evaluate_candidate(slot, rate, path) for path in self.candidates(rate)}
        best = selection.best(scores, self._higher)
        name = self.task.metrics[0].name
        note = f"{best.name}, best {name} of {len(scores)} saved checkpoints {selection.ON_TEST}"
        output = self._copy_results(self._candidate_folder(self.experiment(rate), best))
        return PartResult(output, note + self._borrowed_note(), layer_weights(best))

    def _copy_results(self, candidate: Path) -> Output:
        """Copy the files of the chosen candidate into the folder of the task's results."""
        path, mark = self.folder / EVALUATED, read_record(candidate / EVALUATED)
        if read_record(path) != mark:
            path.unlink(missing_ok=True)
            others = shutil.ignore_patterns(EVALUATED, "*.yaml")
            shutil.copytree(candidate, self.folder, ignore=others, dirs_exist_ok=True)
            write_text(path, json.dumps(mark, indent=1) + "\n")
        return self._with_reference(Output(logs.text(self.folder / EVALUATE_LOG), self.folder))

    # A task without training

    def _evaluate_best_layer(self, slot: Slot) -> PartResult:
        """Search with every hidden state on the development set, and evaluate the best one."""
        needs, reporter, title = self.context.recipe.needs, self.context.reporter, self.title()
        reference, began = self.context.filled(needs.reference_dev), time.monotonic()
        if reference is None:
            raise RunError(f"{self.context.recipe.folder}: reference_dev is missing, allowed: a path")
        experiment, metric, scores = self.experiment(), self.task.metrics[0], {}
        for layer in range(self.context.measured["layers"]):
            out = self.folder / "layers" / str(layer)
            watch = reporter.watch(title, f"searches by hidden state {layer}", out / EVALUATE_LOG)
            output = experiment.evaluate_layer(layer, "dev", out, slot, watch)
            scores[layer] = metric.read(Output(output.text, output.folder, reference))
        best = selection.best(scores, self._higher)
        new = not experiment.is_layer_evaluated(best, self.task.split, self.folder)
        watch = reporter.watch(title, f"evaluates hidden state {best}", self.folder / EVALUATE_LOG)
        output = experiment.evaluate_layer(best, self.task.split, self.folder, slot, watch)
        if new:
            reporter.say(title, f"evaluated hidden state {best} of {len(scores)}, {elapsed(began)}")
        listed = ", ".join(f"{layer}: {score:.2f}" for layer, score in scores.items())
        note = f"hidden state {best}; {metric.title} {metric.unit} on dev: {listed}"
        return PartResult(self._with_reference(output), note)
