"""What one run of SUPERB is to do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, ResultError, RunError
from ...utils.files import read_json, user_cache_dir, write_text
from ..recipe import Recipe, listed, load
from ..tasks.spec import Task
from ..tasks.table import TASKS, find
from .experiment import SEED, Where
from .feature_cache import Cache
from .upstream_spec import Upstream, plain

FILE = "run.json"
DEVICES = ("cuda", "cpu")


@dataclass(frozen=True)
class Plan:
    """One run.

    Args:
        upstream: what it is about.
        recipes: of the tasks, in their order.
        data: folder of all corpora, absolute.
        out: folder of all results, absolute.
        sweep: whether the learning rates of the recipes are tried, the best on dev kept.
        rates: those to try instead.
        seed: of all trainings.
        device: ``cuda`` or ``cpu``.
        gpus: numbers of GPUs; empty for the one that s3prl takes.
        jobs: trainings at a time on the CPU.
        processes: of one training, each on its GPU if there are any.
        cache: where hidden states are kept, if they are.
        trained: folder of a run whose trainings are evaluated with this upstream, instead of own ones.
        command: how it was asked for.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    upstream: Upstream
    recipes: tuple[Recipe, ...]
    data: Path
    out: Path
    sweep: bool = False
    rates: tuple[float, ...] = ()
    seed: int = SEED
    device: str = "cpu"
    gpus: tuple[str, ...] = ()
    jobs: int = 1
    processes: int = 1
    cache: Cache | None = None
    trained: Path | None = None
    command: str = "s3prl-dphubert superb run"

    def __post_init__(self) -> None:
        faults = [] if self.data.is_dir() else [f"data is {str(self.data)!r}, allowed: a folder"]
        if self.device not in DEVICES:
            faults.append(f"device is {self.device!r}, allowed: {', '.join(DEVICES)}")
        for name, least in (("jobs", 1), ("processes", 1), ("seed", 0)):
            if getattr(self, name) < least:
                faults.append(f"{name} is {getattr(self, name)}, allowed: {least} or more")
        if (
            self.processes > 1
            and self.device == "cuda"
            and (not self.gpus or len(self.gpus) % self.processes)
        ):
            faults.append(f"processes is {self.processes}, allowed: a divisor of the number of --gpus")
        if len(set(self.gpus)) < len(self.gpus) or not all(gpu.isdigit() for gpu in self.gpus):
            faults.append(f"gpus is {','.join(self.gpus)!r}, allowed: numbers, each once, as 0,1")
        if not all(0 < rate < float("inf") for rate in self.rates):
            faults.append(f"rates is {self.rates}, allowed: numbers above 0")
        if self.trained is not None:
            if not (self.trained / FILE).is_file():
                faults.append(f"trained is {str(self.trained)!r}, allowed: folder of a run")
            if self.sweep:
                faults.append("sweep is asked for, allowed without trained")
        for name in ("data", "out"):
            faults += plain(name, str(getattr(self, name)))
        ConfigError.raise_for("superb run", faults)

    @property
    def places(self) -> list[Where]:
        """Where jobs run side by side."""
        if self.device == "cpu":
            return [Where("cpu", processes=self.processes)] * self.jobs
        # Numbers count what this process may see, as torch does; a cluster may have hidden others.
        visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        gpus = [visible[int(gpu)] if int(gpu) < len(visible) else gpu for gpu in self.gpus]
        groups = [gpus[i : i + self.processes] for i in range(0, len(gpus), self.processes)]
        return [Where(self.device, ",".join(group), self.processes) for group in groups or [[]]]

    def rates_of(self, recipe: Recipe) -> tuple[float, ...]:
        """Learning rates to try for a task; none without a sweep, or without training."""
        if not self.sweep or not recipe.task.best:
            return ()
        return self.rates or recipe.needs.sweep

    def folder(self, task: Task) -> Path:
        """Where a task's results are."""
        return self.out / task.folder

    def training(self, task: Task) -> Path:
        """Where a task's trainings are."""
        return (self.trained or self.out) / task.folder

    def prepared(self, recipe: Recipe) -> Path:
        """Where what is made of a task's corpus is kept, for all runs."""
        told = f"{os.path.realpath(self.data)}\0{os.path.realpath(recipe.folder)}"
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        return user_cache_dir() / "prepared" / f"{recipe.task.folder}-{digest}"

    def write(self) -> None:
        """Note in the folder what is to be done, for :mod:`.status`, beside what was before.

        Raises:
            RunError: the folder is of another upstream.
        """
        path = self.out / FILE
        known = read_json(path)
        if known and known.get("upstream") != self.upstream.title:
            raise RunError(
                f"{self.out}: holds results of {known.get('upstream')}, not of {self.upstream.title}; "
                "choose another --out, or give the same --name"
            )
        asked = {*known.get("tasks", ()), *(recipe.task.name for recipe in self.recipes)}
        tasks = [task.name for task in TASKS if task.name in asked]
        self.out.mkdir(parents=True, exist_ok=True)
        values = {"upstream": self.upstream.title, "tasks": tasks, "command": self.command}
        write_text(path, json.dumps(values, indent=2) + "\n")


def choose(names: str, root: Path | None = None, changes: Iterable[str] = ()) -> tuple[Recipe, ...]:
    """Recipes of tasks.

    Args:
        names: separated by commas, or ``all``, or ``superb`` for the ten of the score.
        root: folder of recipes, by default the one that ships.
        changes: other values for fields of their configurations.

    Raises:
        ResultError: there is no such task, or no recipe of it.
        ConfigError: a recipe is wrong.
    """
    known = listed(root)
    if names == "all":
        asked = list(known)
    elif names == "superb":
        asked = [task.name for task in TASKS if task.track == "SUPERB" and task.name in known]
    else:
        asked = [find(name.strip()).name for name in names.split(",")]
    missing = [name for name in asked if name not in known]
    if missing or not asked:
        have = ", ".join(known) or "none"
        place = root or "the recipes that ship"
        raise ResultError(f"no recipe of {', '.join(missing) or 'any task'} in {place}, allowed: {have}")
    changes, faults, found = list(changes), [], []
    for name in dict.fromkeys(asked):
        try:
            found.append(load(known[name], changes))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return tuple(found)
