"""The plan of a run: upstream, tasks, folders and devices."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, ResultError, RunError
from ...utils.config_io import apply_changes
from ...utils.files import user_cache_dir, write_text
from ...utils.readers import read_record
from ..recipe import TaskRecipe, load, recipe_folders
from ..tasks import all_tasks, find
from ..tasks.spec import SuperbTask, TaskPart
from . import selection
from .experiment import SEED
from .feature_cache import FeatureCache
from .run_files import RUN, SWEEP
from .slots import Slot
from .upstream_spec import UpstreamSpec, separator_faults

DEVICES = ("cuda", "cpu")


@dataclass(frozen=True)
class RunPlan:
    """One run.

    Args:
        upstream: to evaluate.
        recipes: of the tasks, in their order.
        data: folder of all corpora, absolute.
        out: folder of all results, absolute.
        sweep: try the learning rates of the recipes and keep the best on the development set.
        rates: learning rates to try instead.
        sweep_steps: steps of a first training with each rate, of which only the two best are trained to the
            end; 0 trains all to the end.
        seed: of all trainings.
        device: ``cuda`` or ``cpu``.
        gpus: numbers of GPUs; empty for s3prl's choice.
        jobs: number of trainings at a time on the CPU.
        processes: number of processes of one training, each on its own GPU if there are any.
        cache: of hidden states, if they are kept.
        any_count: accept corpora that differ from SUPERB's in number or length of files; their results
            are excluded from scores.
        trained: folder of a run whose trainings are evaluated with this upstream, instead of new ones.
        command: command line, for the record.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    upstream: UpstreamSpec
    recipes: tuple[TaskRecipe, ...]
    data: Path
    out: Path
    sweep: bool = False
    rates: tuple[float, ...] = ()
    sweep_steps: int = 0
    seed: int = SEED
    device: str = "cpu"
    gpus: tuple[str, ...] = ()
    jobs: int = 1
    processes: int = 1
    cache: FeatureCache | None = None
    any_count: bool = False
    trained: Path | None = None
    command: str = "s3prl-dphubert superb run"

    def __post_init__(self) -> None:
        faults = [] if self.data.is_dir() else [f"data is {str(self.data)!r}, allowed: a folder"]
        if self.device not in DEVICES:
            faults.append(f"device is {self.device!r}, allowed: {', '.join(DEVICES)}")
        for name, least in (("jobs", 1), ("processes", 1), ("seed", 0), ("sweep_steps", 0)):
            if getattr(self, name) < least:
                faults.append(f"{name} is {getattr(self, name)}, allowed: {least} or more")
        if self.gpus and self.device == "cpu":
            gpus = ",".join(self.gpus)
            faults.append(
                f"gpus is {gpus!r}, allowed: none on the CPU, and torch sees no GPU unless --device cuda"
            )
        if self.jobs > 1 and self.device == "cuda":
            faults.append(
                f"jobs is {self.jobs}, allowed: 1 with GPUs, of which --gpus 0,1 runs a job on each"
            )
        several = self.processes > 1 and self.device == "cuda"
        if several and (not self.gpus or len(self.gpus) % self.processes):
            faults.append(f"processes is {self.processes}, allowed: a divisor of the number of --gpus")
        if len(set(self.gpus)) < len(self.gpus) or not all(gpu.isdigit() for gpu in self.gpus):
            faults.append(f"gpus is {','.join(self.gpus)!r}, allowed: numbers, each once, as 0,1")
        if not all(0 < rate < math.inf for rate in self.rates):
            faults.append(f"rates is {self.rates}, allowed: numbers above 0")
        if self.sweep and not any(map(self.rates_of, self.recipes)):
            names = ", ".join(recipe.task.name for recipe in self.recipes)
            faults.append(f"sweep is asked for {names}, allowed: tasks that are trained and have a dev set")
        if self.sweep_steps and not self.sweep:
            faults.append(f"sweep_steps is {self.sweep_steps}, allowed: only with a sweep")
        if self.trained is not None:
            if not (self.trained / RUN).is_file():
                faults.append(f"trained is {str(self.trained)!r}, allowed: folder of a run")
            if self.sweep:
                faults.append("sweep is asked for, allowed without trained")
        for name in ("data", "out"):
            faults += separator_faults(name, str(getattr(self, name)))
        ConfigError.raise_for("superb run", faults)

    @property
    def slots(self) -> list[Slot]:
        """Devices of the jobs that run side by side."""
        if self.device == "cpu":
            return [Slot("cpu", processes=self.processes)] * self.jobs
        # Numbers count the GPUs that this process may see, as in torch; a cluster may have hidden others.
        visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        gpus = [visible[int(gpu)] if int(gpu) < len(visible) else gpu for gpu in self.gpus]
        groups = [gpus[i : i + self.processes] for i in range(0, len(gpus), self.processes)]
        return [Slot(self.device, ",".join(group), self.processes) for group in groups or [[]]]

    def rates_of(self, recipe: TaskRecipe) -> tuple[float, ...]:
        """Return the learning rates to try for a task.

        None without a sweep or without training, nor where checkpoints are compared on the test set: a rate
        that is chosen there is fitted to it.
        """
        if not self.sweep or not recipe.task.can_sweep:
            return ()
        return self.rates or recipe.needs.sweep

    def short_steps(self, recipe: TaskRecipe) -> int:
        """Return the steps of the first stage of a task's sweep; 0 if there is none.

        They are enough for one evaluation, and end at one that is saved.
        """
        runner = next(iter(recipe.configs.values()))["runner"]
        if not self.sweep_steps or len(self.rates_of(recipe)) <= selection.FINALISTS:
            return 0
        every = runner["save_step"]
        steps = math.ceil(max(self.sweep_steps, runner["eval_step"]) / every) * every
        return steps if steps < runner["total_steps"] else 0

    def describe_sweep(self, recipe: TaskRecipe) -> str:
        """Describe the sweep of a task and its cost; empty if it has none."""
        rates, short = self.rates_of(recipe), self.short_steps(recipe)
        if not rates:
            return ""
        if len(rates) == 1:
            return f"learning rate {rates[0]:g}, the only one of the sweep"
        count, parts = len(rates), len(recipe.task.parts)
        steps = next(iter(recipe.configs.values()))["runner"]["total_steps"]
        finalists = selection.FINALISTS if short else count
        total = parts * (count * short + finalists * steps)
        first = f"{count * parts} trainings of {short} steps, then " if short else ""
        text = f"{first}{finalists * parts} trainings of {steps} steps, {total} steps in all"
        text = f"sweep of {count} learning rates: {text}"
        hours = recipe.needs.hours * total / (parts * steps)
        return f"{text}, about {hours:.0f} h on one GPU" if hours else text

    def results(self, task: SuperbTask) -> Path:
        """Return the folder of a task's results."""
        return self.out / task.folder

    def trainings(self, task: SuperbTask) -> Path:
        """Return the folder of a task's trainings, which may be another run's."""
        return (self.trained or self.out) / task.folder

    def trained_rate(self, task: SuperbTask) -> float | None:
        """Return the learning rate that a sweep chose for a task in the run whose trainings are evaluated."""
        if self.trained is None:
            return None
        chosen = read_record(self.trained / task.folder / SWEEP).get("chosen")
        return float(chosen) if isinstance(chosen, int | float) else None

    def prepared(self, recipe: TaskRecipe) -> Path:
        """Return the folder for the files that preparation makes of a task's corpus, for all runs."""
        key = f"{os.path.realpath(self.data)}\0{os.path.realpath(recipe.folder)}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return user_cache_dir() / "prepared" / f"{recipe.task.folder}-{digest}"

    def template(
        self, recipe: TaskRecipe, part: TaskPart, rate: float | None = None, short: bool = False
    ) -> dict[str, Any]:
        """Return s3prl's configuration of a part, with placeholders for places.

        Processes that train together share the recipe's batch, where it can be divided.

        Args:
            recipe: of the task.
            part: of the task.
            rate: learning rate instead of the recipe's.
            short: for the first stage of a sweep.
        """
        values = dict(recipe.configs[part.name])
        changes = [part.override] if part.override else []
        if rate is not None:
            changes.append(f"optimizer.lr={rate:.17f}")
        if short:
            changes.append(f"runner.total_steps={self.short_steps(recipe)}")
        steps = values["runner"].get("gradient_accumulate_steps", 1)
        if recipe.task.trained and self.processes > 1 and steps % self.processes == 0:
            changes.append(f"runner.gradient_accumulate_steps={steps // self.processes}")
        return apply_changes(values, changes)

    def places(self, recipe: TaskRecipe) -> dict[str, str]:
        """Return path -> placeholder of the places in a configuration."""
        named = {"data": self.data, "prepared": self.prepared(recipe), "recipe": recipe.folder.absolute()}
        places = {os.path.realpath(path): f"{{{name}}}" for name, path in named.items()}
        return places | {str(path): f"{{{name}}}" for name, path in named.items()}

    def write(self) -> None:
        """Write ``run.json``, which :mod:`.status` reads; tasks of earlier calls stay in it.

        Raises:
            RunError: the folder is of another upstream.
        """
        path = self.out / RUN
        recorded = read_record(path)
        if recorded and recorded.get("upstream") != self.upstream.title:
            raise RunError(
                f"{self.out}: holds results of {recorded.get('upstream')}, not of {self.upstream.title}; "
                "choose another --out, or give the same --name"
            )
        names = {*recorded.get("tasks", ()), *(recipe.task.name for recipe in self.recipes)}
        tasks = [task.name for task in all_tasks() if task.name in names]
        self.out.mkdir(parents=True, exist_ok=True)
        values = {"upstream": self.upstream.title, "tasks": tasks, "command": self.command}
        write_text(path, json.dumps(values, indent=2) + "\n")


def choose(
    names: str, root: Path | None = None, changes: Iterable[str] = (), own_upstream: bool = True
) -> tuple[TaskRecipe, ...]:
    """Load the recipes of tasks.

    Args:
        names: separated by commas, or ``all``, or ``superb`` for the ten of the score.
        root: folder of recipes, by default the one that ships.
        changes: other values for fields of their configurations, as ``--set`` takes them.
        own_upstream: as for :func:`..recipe.load`.

    Raises:
        ResultError: there is no such task, or no recipe of it.
        ConfigError: a recipe is wrong.
    """
    folders = recipe_folders(root)
    if names == "all":
        chosen = list(folders)
    elif names == "superb":
        chosen = [task.name for task in all_tasks() if task.track == "SUPERB" and task.name in folders]
    else:
        chosen = [find(name.strip()).name for name in names.split(",")]
    missing = [name for name in chosen if name not in folders]
    if missing or not chosen:
        available = ", ".join(folders) or "none"
        place = root or "the recipes that ship"
        raise ResultError(f"no recipe of {', '.join(missing) or 'any task'} in {place}, allowed: {available}")
    changes, faults, recipes = list(changes), [], []
    for name in dict.fromkeys(chosen):
        try:
            recipes.append(load(folders[name], changes, own_upstream))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError(faults[0], detail="\n".join(faults[1:]))
    return tuple(recipes)
