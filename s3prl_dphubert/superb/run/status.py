"""How far a run is, from what lies in its folder; nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import ResultError
from ...utils.files import read_json
from ...utils.locking import folder_is_locked
from ..scoring import score_file
from ..tasks.spec import Task
from ..tasks.table import find
from .experiment import EVALUATED, LOG, STATE, step_of_name
from .part_run import TRAIN
from .plan import FILE
from .task_run import FAILED, PREPARE
from .workers import logs

DONE, RUNNING, BROKEN, STOPPED, WAITING = "done", "running", "failed", "stopped", "waiting"


@dataclass(frozen=True)
class State:
    """How one thing stands.

    Args:
        name: of a task, or of its part and training.
        state: ``done``, ``running``, ``failed``, ``stopped`` or ``waiting``.
        text: the score, the step and the time left, or the last line of the log.
    """

    name: str
    state: str
    text: str = ""


def status(out: Path) -> list[State]:
    """All tasks of a run, each followed by its trainings where they are more than one or not at an end.

    Raises:
        ResultError: the folder is of no run.
    """
    tasks = read_json(out / FILE).get("tasks")
    if not isinstance(tasks, list):
        raise ResultError(f"{out}: is no folder of a run; it holds no {FILE}")
    return [state for name in tasks for state in _task(find(name), out)]


def table(states: list[State]) -> str:
    """The states as lines."""
    width = max((len(state.name) for state in states), default=0)
    return "\n".join(f"{s.name:<{width}}  {s.state:<8} {s.text}".rstrip() for s in states)


def _task(task: Task, out: Path) -> Iterator[State]:
    folder = out / task.folder
    if (folder / score_file.FILE).exists() and not folder_is_locked(folder):
        metrics = score_file.read(folder / score_file.FILE).metrics
        yield State(task.folder, DONE, ", ".join(f"{name} {value:.2f}" for name, value in metrics.items()))
        return
    parts = [state for part in task.parts for state in _part(task, folder, part.name)]
    own = read_json(folder / FAILED)
    if task.parts[0].name == "" and len(parts) == 1:
        yield parts[0]
    elif own:
        yield State(task.folder, BROKEN, _last_line(own))
    elif logs.busy(folder / PREPARE):
        yield State(task.folder, RUNNING, f"prepares {logs.progress(folder / PREPARE) or ''}".rstrip())
    else:
        yield from parts


def _part(task: Task, folder: Path, part: str) -> Iterator[State]:
    """Every training of a part, and what is being evaluated."""
    place = folder / part
    title = f"{task.folder} {part}".rstrip()
    failed = read_json(place / FAILED)
    busy = next((log for log in sorted(place.rglob(LOG)) if logs.busy(log)), None)
    if failed:
        yield State(failed.get("what", title), BROKEN, _last_line(failed))
        return
    if busy is not None:
        yield State(title, RUNNING, f"evaluates {logs.progress(busy) or ''}".rstrip())
        return
    if not part and logs.busy(folder / PREPARE):
        yield State(title, RUNNING, f"prepares {logs.progress(folder / PREPARE) or ''}".rstrip())
        return
    if (place / EVALUATED).exists():
        yield State(title, DONE, "evaluated")
        return
    trainings = sorted(path.parent for path in place.glob(f"{TRAIN}*/{STATE}"))
    if not trainings:
        yield State(title, WAITING)
    for training in trainings:
        yield _training(title, place, training, folder_is_locked(folder))


def _training(title: str, place: Path, training: Path, held: bool) -> State:
    rate = training.name.removeprefix(TRAIN).removeprefix("-lr")
    name = f"{title} lr {rate}" if rate else title
    log = place / f"{training.name}.log"
    if logs.busy(log):
        return State(name, RUNNING, f"trains, {logs.progress(log, logs.OVERALL) or 'begins'}")
    made_from = read_json(training / STATE).get("made_from", {})
    total = made_from.get("config", {}).get("runner", {}).get("total_steps", 0)
    last = max((step_of_name(path) for path in training.glob("states-*.ckpt")), default=0)
    if last == total:
        return State(name, WAITING if held else STOPPED, "trained, to be evaluated")
    return State(name, WAITING if held else STOPPED, f"at step {last} of {total}")


def _last_line(failed: dict) -> str:
    return logs.tail(str(failed.get("error", "")), 1)
