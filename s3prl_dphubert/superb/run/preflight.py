"""What is missing for which task, before anything is started: data, packages, disk, GPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ..prepare import STEPS
from ..recipe import PAGE, Recipe
from ..tasks.requirements import INSTALL, NEEDS, RUNNER, reason
from . import feature_cache
from .plan import Plan

OUT_GB = 2.0  # of a task: checkpoints, predictions and logs
COLUMNS = ("task", "data", "packages", "disk", "GPU")


@dataclass(frozen=True)
class Row:
    """How it stands with one task.

    Args:
        task: its name.
        cells: what is said of data, packages, disk and GPU, each in a word or two.
        missing: what keeps it from running, each with what to do about it.
        remarks: what does not.
    """

    task: str
    cells: tuple[str, str, str, str]
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def check(plan: Plan) -> list[Row]:
    """Look at everything that the tasks of a run need."""
    gpu = _memory(plan) if plan.device == "cuda" else None
    return [_row(plan, recipe, gpu) for recipe in plan.recipes]


def table(rows: list[Row]) -> str:
    """One table, and below it what to do."""
    lines = [COLUMNS, *((row.task, *row.cells) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    shown = [
        "  ".join(f"{cell:<{n}}" for cell, n in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    todo = [f"{row.task}: {each}" for row in rows for each in (*row.missing, *row.remarks)]
    left_out = [row.task for row in rows if row.missing]
    verdict = f"left out: {', '.join(left_out)}" if left_out else "nothing is missing"
    return "\n".join([*shown, "", *todo, verdict])


def _row(plan: Plan, recipe: Recipe, gpu: float | None) -> Row:
    needs = recipe.needs
    missing: list[str] = []
    remarks: list[str] = []
    absent = recipe.missing(plan.data)
    if absent:
        listed = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        missing.append(f"put {listed} below {plan.data}; {recipe.folder / PAGE} says where to get it")
    packages = _packages(recipe)
    if packages:
        missing.append(f"pip install {' '.join(packages)}")
    blocked = needs.blocked or reason(recipe.task)
    if blocked:
        missing.append(blocked)
    if unknown := [name for name in needs.prepare if name not in STEPS]:
        missing.append(f"its recipe prepares {', '.join(unknown)}, allowed: {', '.join(STEPS)}")
    if plan.cache is not None and (refused := feature_cache.remark(recipe.task)):
        remarks.append(refused.partition(": ")[2])
    if plan.processes > 1 and _uneven(plan, recipe):
        remarks.append(f"{plan.processes} processes train with {plan.processes} times the recipe's batch")
    disk = _disk(plan, recipe, bool(absent), missing)
    return Row(
        recipe.task.name,
        (
            f"{len(absent)} of {len(needs.data)} missing" if absent else "there",
            f"{len(packages)} missing" if packages else "blocked" if blocked else "there",
            disk,
            _gpu(plan, recipe, gpu, missing, remarks),
        ),
        tuple(missing),
        tuple(remarks),
    )


def _uneven(plan: Plan, recipe: Recipe) -> bool:
    """Whether the batch cannot be divided among the processes."""
    runners = [config["runner"] for config in recipe.configs.values() if recipe.task.best]
    return any(runner["gradient_accumulate_steps"] % plan.processes for runner in runners)


def _packages(recipe: Recipe) -> list[str]:
    """What is to be installed for a task."""
    needed = ("s3prl", *RUNNER, *NEEDS.get(recipe.task.name, "").split())
    modules = [INSTALL.get(module, module) for module in needed if _absent(module)]
    return list(dict.fromkeys([*modules, *(name for name in recipe.needs.packages if not _installed(name))]))


def _absent(module: str) -> bool:
    return module not in sys.modules and find_spec(module) is None


def _installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def _disk(plan: Plan, recipe: Recipe, absent: bool, missing: list[str]) -> str:
    """Whether there is room for the results, and for the data if it is still to come."""
    free = _free(plan.out)
    if free < OUT_GB:
        missing.append(f"{plan.out} has {free:.1f} GB left, {OUT_GB:g} GB are needed")
        return "full"
    room = _free(plan.data)
    if absent and room < recipe.needs.disk_gb:
        missing.append(f"{plan.data} has {room:.0f} GB left, the data takes {recipe.needs.disk_gb:g} GB")
        return f"{recipe.needs.disk_gb:g} GB to come"
    return f"{free:.0f} GB free"


def _free(place: Path) -> float:
    """GB that are free where a folder is or will be."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / 1e9


def _memory(plan: Plan) -> float:
    """GB of memory of the smallest GPU that is asked for; 0 if one is not there."""
    found, asked = _memories(), [int(gpu) for gpu in plan.gpus] or [0]
    return min(found[gpu] if gpu < len(found) else 0.0 for gpu in asked)


def _memories() -> list[float]:
    """GB of memory of each GPU; asked for in another process, which gives back what it takes to ask."""
    ask = (
        "import torch; "
        "print(*(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count())))"
    )
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    return [int(memory) / 1e9 for memory in asked.stdout.split()] if not asked.returncode else []


def _gpu(plan: Plan, recipe: Recipe, gpu: float | None, missing: list[str], remarks: list[str]) -> str:
    if gpu is None:
        return "not asked for"
    if not gpu:
        asked = f"GPU {','.join(plan.gpus)}" if plan.gpus else "a GPU"
        missing.append(f"{asked} is not there; --device cpu works, for small tests in reasonable time")
        return "missing"
    if gpu < recipe.needs.gpu_gb:
        remarks.append(f"needs about {recipe.needs.gpu_gb:g} GB of GPU memory, {gpu:.0f} GB are there")
    return f"{gpu:.0f} GB"
