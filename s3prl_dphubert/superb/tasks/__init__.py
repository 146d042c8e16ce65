"""SUPERB's tasks, one module each, and the functions that find them.

A module of this package that defines ``TASK``, a :class:`.spec.SuperbTask`, is a task and holds everything
that is known of it. A folder in ``downstream_recipes`` lets it run. No other file lists the tasks.

A task may also be defined outside: in a Python file named in the environment variable
``S3PRL_DPHUBERT_TASKS`` (several are separated as in ``PATH``), which is loaded as if it were one of these
modules, relative imports included; or in code that calls :func:`register`.

Reference points and the rule of the score are the leaderboard's (the challenge paper, 2110.08583,
and the public source of the site); what each evaluation prints is s3prl 0.4.18's.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from ...errors import ConfigError, ResultError
from .spec import EXTRA, SUPERB, SuperbTask

FILES = "S3PRL_DPHUBERT_TASKS"
_registered: list[SuperbTask] = []


def all_tasks() -> tuple[SuperbTask, ...]:
    """Return all tasks in the order of the leaderboard.

    Raises:
        ConfigError: a file named in ``S3PRL_DPHUBERT_TASKS`` defines no task of its own.
    """
    tasks = list(_shipped())
    for task in (*_from_files(os.environ.get(FILES, "")), *_registered):
        ConfigError.raise_for(f"task {task.name}", _clashes(task, tasks))
        tasks.append(task)
    return tuple(sorted(tasks, key=lambda task: (task.position, task.name)))


def core_tasks() -> tuple[SuperbTask, ...]:
    """Return the ten tasks that the SUPERB score is the mean of."""
    return tuple(task for task in all_tasks() if task.track == SUPERB)


def find(name: str) -> SuperbTask:
    """Return the task of that name, in whatever case.

    Raises:
        ResultError: there is none; the message lists them.
    """
    tasks = all_tasks()
    for task in tasks:
        if task.folder == name.lower():
            return task
    raise ResultError(f"unknown task {name!r}; available: {', '.join(task.name for task in tasks)}")


def register(task: SuperbTask) -> None:
    """Add a task that is defined outside this package, for this process.

    Raises:
        ConfigError: another task has its name, or its track is one of SUPERB's.
    """
    ConfigError.raise_for(f"task {task.name}", _clashes(task, all_tasks()))
    _registered.append(task)


def _clashes(task: SuperbTask, others: Iterable[SuperbTask]) -> list[str]:
    faults = [f"name is taken by {other.title}" for other in others if other.folder == task.folder]
    if task.track != EXTRA:  # the leaderboard's tracks are a fixed set, and the score a mean over it
        faults.append(f"track is {task.track!r}, allowed outside this package: {EXTRA!r}")
    return faults


@cache
def _shipped() -> tuple[SuperbTask, ...]:
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return tuple(module.TASK for module in modules if hasattr(module, "TASK"))


@cache
def _from_files(paths: str) -> tuple[SuperbTask, ...]:
    return tuple(_load(Path(path).expanduser()) for path in paths.split(os.pathsep) if path)


def _load(path: Path) -> SuperbTask:
    spec = spec_from_file_location(f"{__name__}.{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{FILES}: no such Python file: {path}")
    module: ModuleType = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it may be anybody's code
        raise ConfigError(f"{FILES}: {path} cannot be imported ({type(error).__name__}: {error})") from error
    task = getattr(module, "TASK", None)
    if not isinstance(task, SuperbTask):
        raise ConfigError(f"{FILES}: {path} defines no TASK, expected a SuperbTask")
    return task
