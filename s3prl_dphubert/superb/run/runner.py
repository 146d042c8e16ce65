"""The tasks of a run, side by side; one that fails does not stop the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import DPHubertError
from .part_run import Setting
from .plan import Plan
from .preflight import Row
from .progress import Lines
from .slots import Lanes
from .task_run import TaskRun
from .workers.launcher import Launcher

FAILED, LEFT_OUT = 1, 3  # exit codes


@dataclass
class Outcome:
    """How a run ended.

    Args:
        done: task -> metrics.
        failed: task -> why.
        left_out: task -> what it lacks.
    """

    done: dict[str, dict[str, float]]
    failed: dict[str, str]
    left_out: dict[str, str]

    @property
    def code(self) -> int:
        """0 if all that was asked for is done, 1 if a task failed, 3 if one lacked something."""
        return FAILED if self.failed else LEFT_OUT if self.left_out else 0


def run(plan: Plan, rows: Sequence[Row], lines: Lines | None = None) -> Outcome:
    """Run all tasks that lack nothing.

    Args:
        plan: what to do.
        rows: what :func:`.check.check` found.
        lines: for what is said meanwhile.

    Raises:
        RunError: the folder is of another upstream, or the upstream cannot be loaded.
        KeyboardInterrupt: after everything that was started has been ended.
    """
    lines = lines or Lines()
    outcome = Outcome({}, {}, {row.task: "; ".join(row.missing) for row in rows if row.missing})
    recipes = [recipe for recipe in plan.recipes if recipe.task.name not in outcome.left_out]
    plan.write()
    if not recipes:
        return outcome
    if plan.cache is not None:
        for recipe in recipes:  # which writes options that the tasks share
            plan.cache.upstreams(plan.upstream, recipe.task, plan.out)
    lanes = Lanes(plan.places)
    with Launcher(_environment(plan)) as launcher:
        try:
            measured = plan.upstream.measured(plan.out, launcher)
            runs = [TaskRun(Setting(plan, each, measured, launcher, lines), lanes) for each in recipes]
            threads = [threading.Thread(target=_one, args=(each, outcome), daemon=True) for each in runs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            launcher.close()
            lanes.close()
    return outcome


def _one(task: TaskRun, outcome: Outcome) -> None:
    name = task.task.name
    try:
        outcome.done[name] = task.run()
    except Exception as error:  # whatever it is, the others go on
        if task.setting.launcher.stopped:
            return
        text = str(error) if isinstance(error, DPHubertError) else f"{type(error).__name__}: {error}"
        outcome.failed[name] = text
        task.lines.say(task.task.folder, f"failed: {text}")


def _environment(plan: Plan) -> dict[str, str]:
    """Threads of each process: jobs side by side share the processors."""
    if plan.device != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // (plan.jobs * plan.processes)))}
