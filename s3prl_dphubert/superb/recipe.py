"""Recipe of a task: a folder of plain data below ``downstream_recipes``.

``config.yaml`` is the configuration for s3prl's run_downstream (``-c``), ``recipe.yaml`` the requirements.
A part of a task with a configuration of its own has ``PART.yaml``, whose ``base`` may be ``config.yaml``.
Strings may hold the placeholders ``{data}``, ``{prepared}`` and ``{recipe}``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ResultError
from ..utils import resources
from ..utils.config_io import apply_changes, differences, from_dict, is_int, is_number, read_yaml, type_faults
from .tasks import all_tasks, find
from .tasks.spec import SUPERB, FeatureReuse, SuperbTask

CONFIG, NEEDS, PAGE = "config.yaml", "recipe.yaml", "README.md"
PLACEHOLDERS = ("data", "prepared", "recipe")
RENAMED = {"mini_superb": "free_superb"}
SWEEP = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
_COUNTS = ("total_steps", "log_step", "eval_step", "save_step", "max_keep", "gradient_accumulate_steps")
_WITHOUT_EFFECT = ("num_workers", "max_workers", "log_step", "max_keep")  # on results
_TUNED = "optimizer.lr"  # the only value that a participant may tune
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_ALLOWED = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)


@dataclass(frozen=True)
class RecipeNeeds:
    """Content of ``recipe.yaml``.

    Args:
        data: files and folders that must exist below ``{data}``.
        prepare: names of the steps of preparation, in order.
        reference: ground truth where s3prl does not score itself, as ``{data}/truth`` or ``{prepared}/rttm``.
        reference_dev: the same for the development set.
        obtain: how to get the data, if that is one command; may hold ``{data}``.
        sweep: learning rates that ``--sweep lr`` tries.
        s3prl_lr: s3prl's own learning rate, taken for upstreams that are not of this package; 0 if it is the
            configuration's.
        published_lr: published model -> learning rate of its result on the page, where that is known.
        packages: to install beside the task's own, by their names on the package index.
        counts: split, as the task's ``audio`` names it -> number of its files; splits that are left out
            may have any.
        disk_gb: size of the raw data.
        gpu_gb: GPU memory that training takes.
        hours: time of training on one GPU.
        blocked: why the task cannot run, and what to do; the task is left out with this message.
        caution: why the result is excluded from scores and reports.
        benchmark: what results are compared within; those of another one never stand beside SUPERB's.
        extra_metrics: metrics of the task to report that SUPERB does not.
        whole_files: no recording is as long as what the task crops its training waveforms to, so that their
            hidden states come again and are worth keeping.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    data: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()
    reference: str = ""
    reference_dev: str = ""
    obtain: str = ""
    sweep: tuple[float, ...] = SWEEP
    s3prl_lr: float = 0.0
    published_lr: Mapping[str, float] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    disk_gb: float = 0.0
    gpu_gb: float = 0.0
    hours: float = 0.0
    blocked: str = ""
    caution: str = ""
    benchmark: str = SUPERB
    extra_metrics: tuple[str, ...] = ()
    whole_files: bool = False

    def __post_init__(self) -> None:
        ConfigError.raise_for("recipe", type_faults(self) or self._faults())

    def _faults(self) -> list[str]:
        faults = [
            f"data has {path!r}, allowed: a path below {{data}}"
            for path in self.data
            if not path or path.startswith(("/", "~", "{")) or ".." in Path(path).parts
        ]
        for name in ("prepare", "packages"):
            if "" in getattr(self, name):
                faults.append(f"{name} is {getattr(self, name)!r}, allowed: a list of names")
        if not all(_is_rate(rate) for rate in self.sweep):
            faults.append(f"sweep is {self.sweep!r}, allowed: a list of numbers above 0")
        if not self.benchmark.strip():
            faults.append("benchmark is empty, allowed: a name")
        faults += [
            f"{name} is {getattr(self, name)!r}, allowed: 0 or more"
            for name in ("disk_gb", "gpu_gb", "hours", "s3prl_lr")
            if getattr(self, name) < 0
        ]
        return faults


@dataclass(frozen=True)
class TaskRecipe:
    """A checked recipe.

    Args:
        task: its task.
        folder: of the recipe.
        needs: content of ``recipe.yaml``.
        configs: part of the task (empty for a task of one part) -> configuration of run_downstream, with its
            placeholders.
        changes: values that differ from the benchmark's, as ``runner.total_steps 4 instead of 200000``, but
            for the learning rate, places and values without effect on results.

    Raises:
        ConfigError: naming every field that is wrong, of all parts.
    """

    task: SuperbTask
    folder: Path
    needs: RecipeNeeds
    configs: Mapping[str, Mapping[str, Any]] = field(repr=False)
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = [
            f"{name} has {word!r}, allowed: {_ALLOWED}"
            for name in ("reference", "reference_dev", "obtain")
            for word in _unknown_placeholders(getattr(self.needs, name))
        ]
        extra = [metric.name for metric in self.task.metrics if metric.extra]
        faults += [
            f"extra_metrics has {name!r}, allowed: {', '.join(extra) or 'none'}"
            for name in self.needs.extra_metrics
            if name not in extra
        ]
        for part in self.task.parts:
            if part.name not in self.configs:
                faults.append(f"{part.name or 'config.yaml'} is missing")
                continue
            prefix = f"{part.name}: " if part.name else ""
            part_faults = config_faults(self.configs[part.name], trained=self.task.trained)
            faults += [prefix + fault for fault in part_faults]
        ConfigError.raise_for(str(self.folder), dict.fromkeys(faults))

    @property
    def rate(self) -> float | None:
        """Learning rate; ``None`` for a task without training."""
        config = next(iter(self.configs.values()))
        return float(config["optimizer"]["lr"]) if self.task.trained else None

    def can_share_batch(self, processes: int) -> bool:
        """Return whether so many processes that train together can share the recipe's batch."""
        runners = [config["runner"] for config in self.configs.values() if self.task.trained]
        return all(runner["gradient_accumulate_steps"] % processes == 0 for runner in runners)

    def config(self, part: str, data: Path, prepared: Path) -> dict[str, Any]:
        """Return the configuration of a part with its placeholders filled in."""
        return self.fill(dict(self.configs[part]), data, prepared)

    def fill(self, value: Any, data: Path, prepared: Path) -> Any:
        """Return nested values with the placeholders of all strings filled in."""
        if isinstance(value, Mapping):
            return {key: self.fill(inner, data, prepared) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.fill(inner, data, prepared) for inner in value]
        if isinstance(value, str):
            paths = {"data": data, "prepared": prepared, "recipe": self.folder.resolve()}
            return _PLACEHOLDER.sub(lambda match: str(paths.get(match[1], match[0])), value)
        return value

    def missing(self, data: Path) -> list[str]:
        """List the files and folders of the data that are not there."""
        return [each for each in self.needs.data if not (data / each).exists()]


def config_faults(config: Mapping[str, Any], trained: bool) -> list[str]:
    """List the faults of a configuration of run_downstream in the fields that all tasks share.

    Args:
        config: as after ``-c``.
        trained: whether the task is trained at all.
    """
    faults = [
        f"{name} is {config.get(name)!r}, allowed: a mapping"
        for name in ("runner", "downstream_expert", *(("optimizer",) if trained else ()))
        if not isinstance(config.get(name), Mapping)
    ]
    sections_missing = bool(faults)
    faults += [
        f"{text!r} has the placeholder {{{word}}}, allowed: {_ALLOWED}"
        for text in _strings(config)
        for word in _unknown_placeholders(text)
    ]
    if trained and not sections_missing:
        faults += _training_faults(config["runner"], config["optimizer"].get("lr"))
    return faults


def _training_faults(runner: Mapping[str, Any], rate: Any) -> list[str]:
    faults = []
    if not _is_rate(rate):
        faults.append(f"optimizer.lr is {rate!r}, allowed: a number above 0 (1.0e-4, not 1e-4)")
    for name in _COUNTS:
        value, least = runner.get(name), 2 if name == "max_keep" else 1
        if not is_int(value) or value < least:
            why = ", since s3prl deletes the old checkpoint before it saves" if least == 2 else ""
            faults.append(f"runner.{name} is {value!r}, allowed: a whole number from {least}{why}")
    steps, every = runner.get("total_steps"), runner.get("save_step")
    if isinstance(steps, int) and isinstance(every, int) and every > 0 and steps % every:
        faults.append(
            f"runner.save_step is {every}, allowed: a divisor of total_steps, {steps}, so that the last step "
            "is saved"
        )
    if not isinstance(runner.get("eval_dataloaders"), list):
        faults.append(f"runner.eval_dataloaders is {runner.get('eval_dataloaders')!r}, allowed: a list")
    return faults


def load(folder: Path, changes: Sequence[str] = (), own_upstream: bool = True) -> TaskRecipe:
    """Read and check the recipe of a folder, whose name is the task's.

    Args:
        folder: with ``config.yaml`` and ``recipe.yaml``.
        changes: other values for fields of the configuration, as ``FIELD=VALUE``, or
            ``TASK.FIELD=VALUE`` for one task's only.
        own_upstream: the upstream is one of this package's; others get s3prl's own learning rate.

    Raises:
        ConfigError: a file is missing or no YAML, or naming every field that is wrong.
    """
    try:
        task = find(folder.name)
    except ResultError as error:
        raise ConfigError(f"{folder}: {error}") from error
    faults: list[str] = []
    needs = RecipeNeeds()
    try:
        needs = from_dict(RecipeNeeds, read_yaml(folder / NEEDS))
    except ConfigError as error:
        faults += error.faults or [str(error)]
    if needs.whole_files:
        task = replace(task, reuse=FeatureReuse(reason="whole files, too short to be cropped"))
    written = _read_configs(task, folder)
    changes = _of_task(task, changes)
    if needs.s3prl_lr and not own_upstream:
        changes = [f"{_TUNED}={needs.s3prl_lr:.17f}", *changes]
    configs = {part: _changed(config, changes) for part, config in written.items()}
    try:
        recipe = TaskRecipe(task, folder, needs, configs, _changes(configs, _official(task, needs, written)))
    except ConfigError as error:
        faults.append(str(error).removeprefix(f"{folder}: "))
    ConfigError.raise_for(str(folder), faults)
    return recipe


def _changed(config: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return a configuration with changes; other total steps bring a divisor of them to save at."""
    changed = apply_changes(config, changes)
    names = {change.partition("=")[0] for change in changes}
    steps, every = (changed.get("runner", {}).get(name) for name in ("total_steps", "save_step"))
    if "runner.total_steps" not in names or "runner.save_step" in names:
        return changed
    if not (is_int(steps) and is_int(every) and steps > 0 and every > 0):
        return changed
    divisor = next(number for number in range(min(steps, every), 0, -1) if steps % number == 0)
    evaluated = min(changed["runner"].get("eval_step", divisor), steps)
    return apply_changes(changed, [f"runner.save_step={divisor}", f"runner.eval_step={evaluated}"])


def _read_configs(task: SuperbTask, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the configuration of each part as a recipe states it."""
    own = {part.name: folder / f"{part.name}.yaml" for part in task.parts}
    return {
        name: read_yaml(path if name and path.exists() else folder / CONFIG) for name, path in own.items()
    }


def _official(
    task: SuperbTask, needs: RecipeNeeds, written: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return what a benchmark's results are made with: SUPERB's shipped recipe, or the own one as written."""
    shipped = resources.find("downstream_recipes") / task.folder
    is_superb = needs.benchmark == SUPERB and (shipped / NEEDS).is_file()
    return _read_configs(task, shipped) if is_superb else written


def _changes(configs: dict[str, dict[str, Any]], official: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Describe the values that differ, each once if it is alike in several parts."""
    changes: dict[str, None] = {}
    for part, config in configs.items():
        for path, (value, other) in sorted(differences(config, official[part])):
            without_effect = path == _TUNED or path.rpartition(".")[2] in _WITHOUT_EFFECT
            if not without_effect and not any(map(_is_place, (*_strings(value), *_strings(other)))):
                changes[f"{path} {_shown(value)} instead of {_shown(other)}"] = None
    return tuple(changes)


def _is_place(text: str) -> bool:
    return "/" in text or bool(_PLACEHOLDER.search(text))


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _of_task(task: SuperbTask, changes: Sequence[str]) -> list[str]:
    """Select the changes that concern a task, without its name."""
    folders, selected = {each.folder for each in all_tasks()}, []
    for change in changes:
        first, _, rest = change.partition(".")
        if first.lower() not in folders:
            selected.append(change)
        elif first.lower() == task.folder:
            selected.append(rest)
    return selected


def recipe_root(name: str) -> Path:
    """Return a folder of recipes by its path, or one that ships by its name.

    Raises:
        ConfigError: there is no such folder.
    """
    if Path(name).is_dir():
        return Path(name)
    shipped = resources.find("downstream_recipes")
    names = sorted({path.parents[1].name for path in shipped.glob(f"*/*/{NEEDS}")})
    if name in names:
        return shipped / name
    if name in RENAMED:
        raise ConfigError(f"--recipes is {name!r}, which is called {RENAMED[name]} now")
    raise ConfigError(
        f"--recipes is {name!r}, no such folder; allowed: a folder of recipes, or {', '.join(names)}"
    )


def recipe_folders(root: Path | None = None) -> dict[str, Path]:
    """Return the names of the tasks that have a recipe, in the order of the table, and their folders.

    Args:
        root: folder of recipes, by default the one that ships.
    """
    root = root or resources.find("downstream_recipes")
    return {task.name: root / task.folder for task in all_tasks() if (root / task.folder / NEEDS).is_file()}


def _strings(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _strings(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _strings(inner)]
    return [value] if isinstance(value, str) else []


def _unknown_placeholders(text: str) -> list[str]:
    return [word for word in _PLACEHOLDER.findall(text) if word not in PLACEHOLDERS]


def _is_rate(value: object) -> bool:
    return is_number(value) and 0 < value < math.inf
