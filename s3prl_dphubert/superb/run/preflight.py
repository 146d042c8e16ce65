"""Check data, packages, disk and GPU of each task before anything is trained."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...utils.environment import package_version
from ..prepare import STEPS
from ..recipe import PAGE, TaskRecipe
from . import corpus, feature_cache
from .plan import RunPlan

OUT_GB = 2.0  # of a task: checkpoints, predictions and logs
FAULTY = "faulty"  # cell of data that is there and cannot be used
COLUMNS = ("task", "data", "packages", "disk", "GPU")


@dataclass(frozen=True)
class PreflightRow:
    """Result of the check of one task.

    Args:
        task: its name.
        cells: data, packages, disk and GPU, each in a word or two.
        missing: requirements that are not met, each with what to do about it.
        remarks: notes that keep the task from nothing.
    """

    task: str
    cells: tuple[str, str, str, str]
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def check(plan: RunPlan) -> list[PreflightRow]:
    """Check the requirements of all tasks of a run."""
    gpu_gb = _smallest_gpu(plan) if plan.device == "cuda" else None
    return [_check_task(plan, recipe, gpu_gb) for recipe in plan.recipes]


def table(rows: list[PreflightRow]) -> str:
    """Format the rows as a table, with what to do below it."""
    lines = [COLUMNS, *((row.task, *row.cells) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    aligned = [
        "  ".join(f"{cell:<{n}}" for cell, n in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    todo = [f"{row.task}: {each}" for row in rows for each in (*row.missing, *row.remarks)]
    left_out = [row.task for row in rows if row.missing]
    verdict = f"left out: {', '.join(left_out)}" if left_out else "nothing is missing"
    return "\n".join([*aligned, "", *todo, verdict])


def _check_task(plan: RunPlan, recipe: TaskRecipe, gpu_gb: float | None) -> PreflightRow:
    needs, task = recipe.needs, recipe.task
    missing: list[str] = []
    remarks: list[str] = []
    absent = recipe.missing(plan.data)
    if absent:
        names = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        missing.append(f"put {names} below {plan.data}; {_advice(plan, recipe)}")
    packages = _missing_packages(recipe)
    if packages:
        missing.append(f"pip install {' '.join(packages)}")
    blocked = needs.blocked or (task.blocked() if task.blocked else "")
    if blocked:
        missing.append(blocked)
    if unknown := [name for name in needs.prepare if name not in STEPS]:
        missing.append(f"its recipe prepares {', '.join(unknown)}, allowed: {', '.join(STEPS)}")
    if plan.processes > 1 and not task.shares_batches:
        missing.append(f"{plan.processes} processes would train on the same batches, allowed: --processes 1")
    if plan.cache is not None and (refusal := feature_cache.refusal(task)):
        remarks.append(refusal.partition(": ")[2])
    if not recipe.can_share_batch(plan.processes):
        remarks.append(f"{plan.processes} processes train with {plan.processes} times the recipe's batch")
    remarks += _describe_rates(plan, recipe)
    disk = _check_disk(plan, recipe, bool(absent), missing)
    gpu = _check_gpu(plan, recipe, gpu_gb, missing, remarks)
    data = f"{len(absent)} of {len(needs.data)} missing" if absent else "there"
    if not missing and task.audio is not None:
        data = _check_audio(plan, recipe, missing, remarks)
    return PreflightRow(
        task.name,
        (
            data,
            f"{len(packages)} missing" if packages else "blocked" if blocked else "there",
            disk,
            gpu,
        ),
        tuple(missing),
        tuple(remarks),
    )


def _advice(plan: RunPlan, recipe: TaskRecipe) -> str:
    if recipe.needs.obtain:
        return recipe.fill(recipe.needs.obtain, plan.data, plan.prepared(recipe))
    page = recipe.folder / PAGE
    return f"{page} says where to get it" if page.exists() else f"{recipe.folder} has no {PAGE} about it"


def _describe_rates(plan: RunPlan, recipe: TaskRecipe) -> Iterator[str]:
    if text := plan.describe_sweep(recipe):
        yield text
    elif plan.sweep and recipe.task.trained:
        yield (
            f"keeps its learning rate of {recipe.rate:g}: it has no development set, so that a sweep would "
            "choose one on the test set"
        )
    elif recipe.needs.s3prl_lr and recipe.rate == recipe.needs.s3prl_lr:
        yield f"learning rate {recipe.rate:g}, s3prl's own; models of this package get another one"


def _check_audio(plan: RunPlan, recipe: TaskRecipe, missing: list[str], remarks: list[str]) -> str:
    """Check all files that the task lists; lists that take long to prepare are checked by the run itself."""
    prepared = plan.prepared(recipe)
    templates = [plan.template(recipe, part) for part in recipe.task.parts]
    checks, config = [], recipe.fill(templates[0], plan.data, prepared)
    steps = [STEPS[name] for name in recipe.needs.prepare]
    try:
        for step in steps:
            if step.quick:
                step(plan.data, prepared, config)
        ready = all(step.is_done(plan.data, prepared, config) for step in steps)
        place = prepared if ready else prepared / "not prepared"  # lists of another state of the corpus
        for template in templates:
            filled = recipe.fill(template, plan.data, place)
            checks.append(corpus.check(recipe.task, filled, recipe.needs.counts))
    except corpus.ListsError as error:
        if not ready:
            return "to be prepared"
        missing.append(str(error))
    except DataError as error:
        missing.append(str(error))
    if deviations := list(dict.fromkeys(text for check in checks for text in check.deviations)):
        if plan.any_count:
            remarks.append(f"excluded from the score: {'; '.join(deviations)}")
        else:
            missing.append(f"{'; '.join(deviations)}; {corpus.ANY_COUNT}")
    return FAULTY if missing else f"{max(check.files for check in checks)} files"


def _missing_packages(recipe: TaskRecipe) -> list[str]:
    own = [name for name in recipe.needs.packages if not package_version(name)]
    return list(dict.fromkeys([*recipe.task.missing_packages(), *own]))


def _check_disk(plan: RunPlan, recipe: TaskRecipe, data_absent: bool, missing: list[str]) -> str:
    """Check the room for the results, and for the data if it is still to come."""
    free = _free_gb(plan.out)
    if free < OUT_GB:
        missing.append(f"{plan.out} has {free:.1f} GB left, {OUT_GB:g} GB are needed")
        return "full"
    room = _free_gb(plan.data)
    if data_absent and room < recipe.needs.disk_gb:
        missing.append(f"{plan.data} has {room:.0f} GB left, the data takes {recipe.needs.disk_gb:g} GB")
        return f"{recipe.needs.disk_gb:g} GB to come"
    return f"{free:.0f} GB free"


def _free_gb(folder: Path) -> float:
    """Return the free space of a folder's file system; the folder may not be there yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


def _smallest_gpu(plan: RunPlan) -> float:
    """Return the memory of the smallest GPU of a plan in GB; 0 if one of them is not there."""
    memories, gpus = _gpu_memories(), [int(gpu) for gpu in plan.gpus] or [0]
    return min(memories[gpu] if gpu < len(memories) else 0.0 for gpu in gpus)


def _gpu_memories() -> list[float]:
    """Return the memory of each GPU in GB.

    Another process asks, since asking takes memory of the GPU, which only the end of a process gives back.
    """
    script = (
        "import torch; "
        "print(*(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count())))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return [int(memory) / 1e9 for memory in answer.stdout.split()] if not answer.returncode else []


def _check_gpu(
    plan: RunPlan, recipe: TaskRecipe, gpu_gb: float | None, missing: list[str], remarks: list[str]
) -> str:
    if gpu_gb is None:
        return "not asked for"
    if not gpu_gb:
        gpu = f"GPU {','.join(plan.gpus)}" if plan.gpus else "a GPU"
        missing.append(f"{gpu} is not there; --device cpu works, for small tests in reasonable time")
        return "missing"
    if gpu_gb < recipe.needs.gpu_gb:
        remarks.append(f"needs about {recipe.needs.gpu_gb:g} GB of GPU memory, {gpu_gb:.0f} GB are there")
    return f"{gpu_gb:.0f} GB"
