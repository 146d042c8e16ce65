"""Numbers on the page of a recipe.

``python -m s3prl_dphubert.superb.report.recipe_page FOLDER…`` brings pages up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...utils import markdown
from ...utils.files import write_text
from ...utils.markdown import BEGIN, END
from ..recipe import PAGE, TaskRecipe, load
from ..scoring import points
from ..scoring.model_results import published
from ..tasks import all_tasks
from ..tasks.spec import HIGHER, LOWER, SuperbTask

ROWS = ("HuBERT Base", "DPHuBERT", "DPWavLM", "DistilHuBERT")
_SIZES = ("train_batch_size", "train_batchsize", "batch_size")  # what s3prl's tasks call it


def fill(text: str, recipe: TaskRecipe) -> str:
    """Put the current numbers between the markers of a page.

    Raises:
        ConfigError: the markers are missing.
    """
    return markdown.fill(text, BEGIN, END, numbers(recipe), str(recipe.folder / PAGE))


def numbers(recipe: TaskRecipe) -> str:
    """Format command, needs, hyper-parameters and published results of a recipe as Markdown."""
    task = recipe.task
    command = (
        f"s3prl-dphubert superb run --upstream dphubert --tasks {task.folder} --data DATA --out runs/superb"
    )
    parts = [f"```sh\n{command}\n```", _table("needs", _needs(recipe)), _table("training", _training(recipe))]
    return "\n\n".join(part for part in [*parts, _expected(recipe)] if part) + "\n"


def batch(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the utterances a step, and the steps whose gradients are added; ``None`` if not stated."""
    for place in ("datarc", "loaderrc", "corpus"):
        inner = config["downstream_expert"].get(place) or {}
        for name in _SIZES:
            if name in inner:
                return int(inner[name]), int(config["runner"].get("gradient_accumulate_steps", 1))
    return None


def _needs(recipe: TaskRecipe) -> dict[str, str]:
    needs = recipe.needs
    rows = {
        "below `DATA`": ", ".join(f"`{place}`" for place in needs.data),
        "disk": f"{needs.disk_gb:g} GB" if needs.disk_gb else "",
        "GPU memory": f"{needs.gpu_gb:g} GB" if needs.gpu_gb else "",
        "time on one GPU": f"{needs.hours:g} h" if needs.hours else "",
        "packages": f"`pip install {' '.join(needs.packages)}`" if needs.packages else "",
        "files": ", ".join(f"{count} {name}" for name, count in needs.counts.items()),
        "prepared first": ", ".join(f"`{name}`" for name in needs.prepare),
    }
    return {name: text for name, text in rows.items() if text}


def _training(recipe: TaskRecipe) -> dict[str, str]:
    if not recipe.task.trained:
        return {}
    config = next(iter(recipe.configs.values()))
    runner, optimizer, size = config["runner"], config["optimizer"], batch(config)
    name = optimizer.get("torch_optim_name", optimizer.get("name"))
    rates = recipe.needs.sweep if recipe.task.can_sweep else ()
    other = recipe.needs.s3prl_lr
    return {
        "optimizer": f"{name}, learning rate {_number(optimizer['lr'])}",
        "for upstreams of s3prl": f"learning rate {_number(other)}, its own" if other else "",
        "`--sweep lr` tries": ", ".join(map(_number, rates)),
        "batch": f"{size[0]} × {size[1]} steps = {size[0] * size[1]} utterances" if size else "",
        "steps": f"{runner['total_steps']}, saved every {runner['save_step']}",
        "checkpoint": _tried(recipe.task) if recipe.task.tries_checkpoints else f"`{recipe.task.checkpoint}`",
    }


def _tried(task: SuperbTask) -> str:
    which = f"{task.tried}, evenly over the training" if task.tried else "all saved ones"
    return f"the best of {which}, as SUPERB does without a development set"


def _expected(recipe: TaskRecipe) -> str:
    task, rates = recipe.task, recipe.needs.published_lr
    metrics = points.scored(task)
    rows = []
    for model in published():
        values = model.means.get(task.name)
        if model.name in ROWS and values:
            shown = (f"{values[metric.name]:.2f}" for metric in metrics)
            rate = _number(rates[model.name]) if model.name in rates else "not stated"
            rows.append([model.name, *shown, *([rate] if task.trained else []), model.source])
    if not rows:
        return ""
    arrows = {HIGHER: "↑", LOWER: "↓"}
    titles = (f"{f'{metric.title} {metric.unit}'.strip()} {arrows[metric.better]}" for metric in metrics)
    trained = ["learning rate"] if task.trained else []
    return markdown.table(["expected", *titles, *trained, "from"], rows)


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {text} |" for name, text in rows.items() if text]
    return "\n".join([f"| {title} | |", "|---|---|", *lines]) if lines else ""


def _number(value: float) -> str:
    """Format 0.0005 as ``5e-4``."""
    digits, _, power = f"{value:.0e}".partition("e")
    return f"{digits}e{int(power)}"


def main(folders: list[str]) -> None:
    """Update the pages of folders; those without markers stay as they are."""
    for folder in map(Path, folders):
        if folder.name in {task.folder for task in all_tasks()} and (page := folder / PAGE).is_file():
            text = page.read_text(encoding="utf8")
            if BEGIN in text:
                write_text(page, fill(text, load(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
