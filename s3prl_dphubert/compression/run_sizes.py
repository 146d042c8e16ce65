"""Several sizes from one stage 1: cut where the rising target reaches each, then distilled one by one."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.batches import Batch, BatchStream
from ..model import SpeechModel
from ..model.state_dict import load_weights_only
from ..pruning.budget_steps import SteppedBudget
from ..training.distributed import Processes
from ..utils import markdown
from ..utils.files import write_text
from ..utils.readers import read_json_lines, read_record
from .compress_config import CompressConfig
from .compression_run import CompressionRun
from .run_directory import removable, run_directory

TABLE = "sizes.md"


class SeveralSizes(CompressionRun):
    """Run whose stage 1 stops at each size on its way to the smallest.

    The updates of stage 1 are divided among the sizes. In each part the target rises to the size and stays
    there; at its end a copy of the student is cut. Each size has a directory, that of an ordinary run.

    Args:
        config: the run, with ``sizes``.
        out: its directory, which process 0 has locked.
        processes: all processes of the run.
    """

    def __init__(self, config: CompressConfig, out: Path, processes: Processes) -> None:
        smallest = config.budget.of_size(config.sizes[-1])
        super().__init__(replace(config, budget=smallest), out, processes)

    def finish(self) -> SpeechModel:
        """Run the remaining steps, and return the smallest model."""
        if self.config.student is not None:
            self.step("student", self.initialize)
        parts = [SizeRun(self, size) for size in self.config.sizes]
        if not self.processes.broadcast(all((part.out / "pruned").exists() for part in parts)):
            self.prune_all(parts)
            self.processes.barrier()
        models = []
        for part in parts:
            with part.directory():
                models.append(part.finish())
        if self.processes.main:
            results = {str(part.config.budget): read_record(part.out / "results.json") for part in parts}
            write_text(self.out / TABLE, f"{size_table(results)}\n")
        return models[-1]

    def prune_all(self, parts: list[SizeRun]) -> None:
        """Run stage 1, and cut the student at each size that has not been cut."""
        task = self.joint_pruning()
        budgets = [part.config.budget.relative_to(task.full_costs) for part in parts]
        steps = SteppedBudget.of(budgets, task.config.updates)
        task.budget = steps
        self.record_validation("student" if self.config.student else "teacher_copy", task)
        self.train(task, 1, frozenset(steps.ends))
        for part, budget, end in zip(parts, budgets, steps.ends, strict=True):
            path = self.out / "stage1" / f"state-{end:08d}.pt"
            with removable(path, "the last checkpoint before it goes on"):
                task.module.load_state_dict(load_weights_only(path)["module"])
            task.budget = budget
            with part.directory():
                if not (part.out / "pruned").exists():
                    part.take_over(end)
                    part.cut(task)


class SizeRun(CompressionRun):
    """Run of one size, whose stage 1 is that of the whole run.

    Args:
        whole: run of all sizes.
        size: one of them.
    """

    def __init__(self, whole: SeveralSizes, size: float | str) -> None:
        self.config = replace(whole.config, budget=whole.config.budget.of_size(size), sizes=())
        self.whole, self.out, self.processes = whole, whole.out / str(size), whole.processes
        self.teacher, self.targets = whole.teacher, whole.targets

    @cached_property
    def data(self) -> tuple[BatchStream, list[Batch]]:
        """Training stream and validation batches of the whole run."""
        return self.whole.data

    def directory(self) -> AbstractContextManager[None]:
        """Hold the directory of this size."""
        return run_directory(self.config, self.out) if self.processes.main else nullcontext()

    def take_over(self, update: int) -> None:
        """Copy what is known of the whole stage 1 up to an update: its log, losses and environment."""
        if not self.processes.main:
            return
        whole = read_record(self.whole.out / "results.json")
        results = {name: whole.get(name, {}) for name in ("valid", "environment")}
        write_text(self.out / "results.json", json.dumps(results, indent=2) + "\n")
        rows = read_json_lines(self.whole.out / "stage1" / "log.jsonl")
        (self.out / "stage1").mkdir(exist_ok=True)
        before = [json.dumps(row) for row in rows if row.get("update", update) <= update]
        write_text(self.out / "stage1" / "log.jsonl", "".join(f"{row}\n" for row in before))

    def finish(self) -> SpeechModel:
        """Run the remaining steps, and return the result."""
        self.step("model", self.distill)
        if self.processes.main:
            self.report()
        self.processes.barrier()
        return self.load("model")


def size_table(results: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table of all sizes: cost, share of the teacher, and losses.

    Args:
        results: budget -> content of ``results.json``.
    """
    head = ["budget", "parameters, M", "MACs, G", "of the teacher", "loss after pruning", "after stage 2"]
    rows = []
    for budget, values in results.items():
        model, teacher, valid = values["model"], values["teacher"], values["valid"]
        losses = [valid[name]["loss"] if valid.get(name) else None for name in ("pruned", "stage2")]
        rows.append(
            [
                budget,
                f"{model['parameters'] / 1e6:.3f}",
                f"{model['macs'] / 1e9:.3f}",
                f"{model['parameters'] / teacher['parameters']:.1%}, {model['macs'] / teacher['macs']:.1%}",
                *("–" if loss is None else f"{loss:.4f}" for loss in losses),
            ]
        )
    return markdown.table(head, rows)
