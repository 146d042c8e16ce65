"""Report a run's progress from the files in its directory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ResultError
from ...utils.locking import folder_is_locked
from ...utils.readers import read_record
from ..scoring import score_file
from ..tasks import find
from ..tasks.spec import SuperbTask
from .run_files import (
    EVALUATE_LOG,
    EVALUATED,
    PREPARE_LOG,
    RUN,
    STATE,
    TRAINING,
    rate_of_training,
    step_in_name,
)
from .workers import logs

DONE, RUNNING, BROKEN, STOPPED, WAITING = "done", "running", "failed", "stopped", "waiting"


@dataclass(frozen=True)
class StatusRow:
    """State of a task, or of one of its trainings.

    Args:
        name: of the task, or of its part and training.
        state: ``done``, ``running``, ``failed``, ``stopped`` or ``waiting``.
        text: the score, the step and the time left, or the last line of the log.
    """

    name: str
    state: str
    text: str = ""


def status(out: Path) -> list[StatusRow]:
    """List all tasks of a run, by their trainings where those are several or not at an end.

    Raises:
        ResultError: the folder is not that of a run.
    """
    tasks = read_record(out / RUN).get("tasks")
    if not isinstance(tasks, list):
        raise ResultError(f"{out}: is no folder of a run; it holds no {RUN}")
    return [row for name in tasks for row in _task_rows(find(name), out)]


def table(rows: list[StatusRow]) -> str:
    """Format the rows as lines."""
    width = max((len(row.name) for row in rows), default=0)
    return "\n".join(f"{row.name:<{width}}  {row.state:<8} {row.text}".rstrip() for row in rows)


def _task_rows(task: SuperbTask, out: Path) -> Iterator[StatusRow]:
    folder = out / task.folder
    rows = [row for part in task.parts for row in _part_rows(task, folder, part.name)]
    failure = read_record(folder / score_file.FAILED)
    broken = failure or any(row.state == BROKEN for row in rows)
    if (folder / score_file.FILE).exists() and not broken and not folder_is_locked(folder):
        metrics = score_file.read(folder / score_file.FILE).metrics
        text = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        yield StatusRow(task.folder, DONE, text)
        return
    if task.parts[0].name == "" and len(rows) == 1:
        yield rows[0]
    elif failure:
        yield StatusRow(task.folder, BROKEN, _reason(failure))
    elif logs.busy(folder / PREPARE_LOG):
        yield _busy_row(task.folder, "prepares", folder / PREPARE_LOG)
    else:
        yield from rows


def _part_rows(task: SuperbTask, folder: Path, part: str) -> Iterator[StatusRow]:
    """List the trainings of a part, or its evaluation."""
    place = folder / part
    title = f"{task.folder} {part}".rstrip()
    failure = read_record(place / score_file.FAILED)
    evaluating = next((log for log in sorted(place.rglob(EVALUATE_LOG)) if logs.busy(log)), None)
    if failure:
        yield StatusRow(failure.get("what", title), BROKEN, _reason(failure))
        return
    if evaluating is not None:
        yield _busy_row(title, "evaluates", evaluating)
        return
    if not part and logs.busy(folder / PREPARE_LOG):
        yield _busy_row(title, "prepares", folder / PREPARE_LOG)
        return
    if (place / EVALUATED).exists():
        yield StatusRow(title, DONE, "evaluated")
        return
    trainings = sorted(path.parent for path in place.glob(f"{TRAINING}*/{STATE}"))
    if not trainings:
        yield StatusRow(title, WAITING)
    for training in trainings:
        yield _training_row(title, training, folder_is_locked(folder))


def _busy_row(title: str, activity: str, log: Path) -> StatusRow:
    return StatusRow(title, RUNNING, f"{activity} {logs.progress(log) or ''}".rstrip())


def _training_row(title: str, training: Path, locked: bool) -> StatusRow:
    rate = rate_of_training(training.name)
    name = f"{title} lr {rate}" if rate else title
    log = training.with_name(f"{training.name}.log")
    if logs.busy(log):
        return StatusRow(name, RUNNING, f"trains, {logs.progress(log, logs.OVERALL) or 'begins'}")
    inputs = read_record(training / STATE).get("made_from", {})
    total = inputs.get("config", {}).get("runner", {}).get("total_steps", 0)
    step = max((step_in_name(path) for path in training.glob("states-*.ckpt")), default=0)
    text = "trained, to be evaluated" if step == total else f"at step {step} of {total}"
    return StatusRow(name, WAITING if locked else STOPPED, text)


def _reason(failure: dict[str, Any]) -> str:
    return logs.reason(str(failure.get("error", "")))
