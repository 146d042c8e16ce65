"""The tasks of a run, side by side; one that fails does not stop the others."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import DPHubertError
from ...utils.files import write_text
from ..scoring import score_file
from .part_run import TaskContext
from .plan import RunPlan
from .preflight import FAULTY, PreflightRow
from .progress import Reporter
from .slots import Gate, SlotPool
from .task_run import TaskRun
from .workers.launcher import Launcher

FAILED, LEFT_OUT = 1, 3  # exit codes


@dataclass
class RunOutcome:
    """Result of a run.

    Args:
        done: task -> metrics.
        failed: task -> error.
        left_out: task -> requirements that are missing.
    """

    done: dict[str, dict[str, float]]
    failed: dict[str, str]
    left_out: dict[str, str]

    @property
    def code(self) -> int:
        """Exit code: 0 if all tasks are done, 1 if one failed, 3 if one was left out."""
        return FAILED if self.failed else LEFT_OUT if self.left_out else 0


def run(plan: RunPlan, rows: Sequence[PreflightRow], reporter: Reporter | None = None) -> RunOutcome:
    """Run all tasks whose requirements are met.

    Args:
        plan: of the run.
        rows: result of :func:`.preflight.check`.
        reporter: of the progress.

    Raises:
        RunError: the folder is of another upstream, or the upstream cannot be loaded.
        KeyboardInterrupt: after all processes have been ended.
    """
    reporter = reporter or Reporter()
    outcome = RunOutcome({}, {}, {row.task: "; ".join(row.missing) for row in rows if row.missing})
    recipes = [recipe for recipe in plan.recipes if recipe.task.name not in outcome.left_out]
    plan.write()
    for recipe, row in zip(plan.recipes, rows, strict=True):
        folder = plan.results(recipe.task)
        if row.cells[0] == FAULTY and (folder / score_file.FILE).exists():  # made of another corpus
            failure = {"what": recipe.task.folder, "error": outcome.left_out[row.task]}
            write_text(folder / score_file.FAILED, json.dumps(failure) + "\n")
    if not recipes:
        return outcome
    if plan.cache is not None:
        for recipe in recipes:  # write the files of options, which tasks share, before there are threads
            plan.cache.upstreams(plan.upstream, recipe.task, plan.out)
    slots = SlotPool(plan.slots)
    with Launcher(_environment(plan)) as launcher:
        try:
            measured = plan.upstream.measured(plan.out, launcher)
            contexts = [TaskContext(plan, recipe, measured, launcher, reporter) for recipe in recipes]
            checked = Gate(len(contexts))
            runs = [TaskRun(context, slots, checked) for context in contexts]
            threads = [threading.Thread(target=_run_task, args=(each, outcome), daemon=True) for each in runs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            launcher.close()
            slots.close()
    return outcome


def _run_task(run: TaskRun, outcome: RunOutcome) -> None:
    name = run.task.name
    try:
        outcome.done[name] = run.run()
    except Exception as error:  # whatever it is, the others go on
        if run.context.launcher.stopped:
            return
        text = str(error) if isinstance(error, DPHubertError) else f"{type(error).__name__}: {error}"
        outcome.failed[name] = text
        run.reporter.say(run.task.folder, f"failed: {text}")


def _environment(plan: RunPlan) -> dict[str, str]:
    """Return the number of threads of each process, since jobs side by side share the processors."""
    if plan.device != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // (plan.jobs * plan.processes)))}
