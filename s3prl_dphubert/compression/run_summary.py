"""Text about a finished run: cost, losses, and commands to go on with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ..utils.readers import read_record

LOSSES = {
    "teacher_copy": "teacher copy",
    "student": "student at the start",
    "stage1": "after stage 1 (masked)",
    "pruned": "after pruning",
    "stage2": "after stage 2",
}


def cost_lines(results: dict[str, Any]) -> list[str]:
    """Return the cost of teacher and result, given the content of results.json."""
    before, after, lines = results["teacher"], results["model"], []
    for name, unit in (("parameters", 1e6), ("macs", 1e9)):
        title = "parameters (M)" if unit == 1e6 else f"MACs of {results['macs_seconds']:g} s (G)"
        change = f"{before[name] / unit:8.3f} -> {after[name] / unit:8.3f}"
        lines.append(f"{title:<24}{change}   {100 * after[name] / before[name]:.1f} % of the teacher")
    return lines


def sparsity_lines(results: dict[str, Any]) -> list[str]:
    """Return target and expected sparsity at the end of stage 1; none without stage 1."""
    return [
        f"{f'sparsity in {count}':<24}{row['expected']:8.3f} by the gates, target {row['target']:.3f}"
        for count, row in results.get("sparsity", {}).items()
    ]


def loss_lines(results: dict[str, Any]) -> list[str]:
    """Return the validation losses in the order of training; there may be none."""
    rows = [(title, results["valid"][key]) for key, title in LOSSES.items() if results["valid"].get(key)]
    lines = [f"  {title:<24}{scalars['loss']:9.5f}" for title, scalars in rows]
    return ["validation distillation loss", *lines] if lines else []


def render_summary(out: Path) -> str:
    """Return a few lines about a finished run, given its directory."""
    results, model = read_record(out / "results.json"), shlex.quote(str(out / "model"))
    following = [
        f"next: s3prl-dphubert inspect {model}",
        f"      s3prl-dphubert report {shlex.quote(str(out))} --measure",
        f"      s3prl-dphubert export {model} model.onnx --format onnx",
        f"      s3prl-dphubert superb run --upstream dphubert_local --ckpt {model} --data DIR --out DIR",
    ]
    return "\n".join([*cost_lines(results), *sparsity_lines(results), *loss_lines(results), *following])
