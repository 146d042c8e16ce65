"""The demo: the whole pipeline on the speech and the teacher that ship."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import resources
from .card import units_table
from .checkpoint import load_model
from .config import CompressConfig
from .data.manifest import scan, write
from .pipeline import compress
from .profile import real_time_factors
from .settings import from_dict, merge, read_yaml
from .teachers import load_teacher

STEPS = {
    "teacher_copy": "teacher copy",
    "student": "student at the start",
    "stage1": "after stage 1 (masked)",
    "pruned": "after pruning",
    "stage2": "after stage 2",
}


def demo(out: Path, config: Path | None = None) -> None:
    """Manifest of the embedded speech, compression of ``hubert_nano``, report and plots.

    Args:
        out: directory for the manifests and the run; a demo that was interrupted goes on.
        config: YAML laid under the manifests' paths; ``upstream_configs/demo.yaml`` by default.
    """
    speech = resources.find("assets/speech")
    found, skipped = scan([speech], min_seconds=0.4, splits={"valid": "*[05].ogg"})
    print(write(out / "speech.tsv", found, skipped, overwrite=True))
    values = read_yaml(config or resources.find("upstream_configs/demo.yaml"))
    paths = {"data": {"train": str(out / "speech.tsv"), "valid": str(out / "speech.valid.tsv")}}
    settings: CompressConfig = from_dict(CompressConfig, merge(values, paths))
    compress(replace(settings), out / "run")
    show(out / "run", settings)


def show(run: Path, settings: CompressConfig) -> None:
    """Print what a finished run kept, cost and lost, and how fast its result is."""
    results: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf8"))
    teacher, model = load_teacher(settings.teacher), load_model(run / "model")
    print(f"\n{units_table(model.config)}\n")
    before, after = results["teacher"], results["model"]
    for name, unit in (("parameters", 1e6), ("macs", 1e9)):
        share = 100 * after[name] / before[name]
        title = "parameters (M)" if unit == 1e6 else f"MACs of {results['macs_seconds']:g} s (G)"
        change = f"{before[name] / unit:8.3f} -> {after[name] / unit:8.3f}"
        print(f"{title:<24}{change}   {share:.1f} % of the teacher")
    print("\nvalidation distillation loss")
    for key, title in ((key, title) for key, title in STEPS.items() if results["valid"].get(key)):
        print(f"  {title:<24}{results['valid'][key]['loss']:9.5f}")
    speed = real_time_factors({"teacher": teacher, "compressed": model})
    ratio = speed["compressed"] / speed["teacher"]
    print(f"\nreal-time factor        {speed['teacher']:.4f} -> {speed['compressed']:.4f}   {ratio:.2f} x")
    print(
        f"\nspeech  {resources.find('assets/speech')}, credits in CREDITS.txt, licences in LICENSES.md; among"
    )
    print("        the voices (c) Marco Menardi e Paola Dal Zot, http://www.voip.ammdomus.it")
    print(f"model   {run / 'model'}\nplots   {run / 'training.png'}, {run / 'units.png'}")
