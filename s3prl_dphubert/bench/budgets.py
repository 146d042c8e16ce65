"""Comparison of compression runs under different budgets: remaining units, speed and losses.

``python -m s3prl_dphubert.bench.budgets docs/results/budgets.md GROUP NAME=RUN…`` measures the results of
finished runs of one teacher, stores them in ``docs/results/budgets.json`` and fills in the table of the page.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.load import load_model
from ..constants import SAMPLE_RATE
from ..errors import ConfigError
from ..model import SpeechModel
from ..model.cost import macs, parameters, superb_macs
from ..model.inference.folded import fold
from ..model.profiler import real_time_factors
from ..pruning.budget import Budget
from ..utils import markdown
from ..utils.config_io import from_dict, read_yaml
from ..utils.files import write_text
from ..utils.markdown import BEGIN, END
from ..utils.readers import read_json
from .machine import machine, versions

PRECISIONS = ("fp32", "bf16")
LOSSES = {"stage1": "after stage 1", "pruned": "pruned", "stage2": "after stage 2"}
TEACHER = "teacher"


def measure(runs: dict[str, Path], seconds: float = 10.0, repeats: int = 15) -> dict[str, Any]:
    """Measure cost, speed and losses of finished runs of one teacher, and of the teacher.

    Speed is that of the folded models in turns, in seconds of compute per second of audio at batch size 1.

    Args:
        runs: name -> folder of a finished run.
        seconds: length of the utterance to time, which MACs are given for.
        repeats: number of turns.

    Raises:
        ConfigError: a run is not finished, or the runs have different teachers.
    """
    configs = {name: _config(run) for name, run in runs.items()}
    teachers = {config["teacher"] for config in configs.values()}
    if len(teachers) != 1:
        raise ConfigError(f"runs are of {', '.join(sorted(teachers))}, allowed: one teacher")
    models: dict[str, SpeechModel] = {TEACHER: load_model(teachers.pop()).eval()}
    models |= {name: load_model(run / "model") for name, run in runs.items()}
    speeds: dict[str, dict[str, float]] = {name: {} for name in models}
    for precision in PRECISIONS:
        folded: dict[str, Any] = {name: fold(model, precision) for name, model in models.items()}
        for name, factor in real_time_factors(folded, seconds, repeats).items():
            speeds[name][precision] = factor
    rows = {}
    for name, model in models.items():
        shape, run = model.config, runs.get(name)
        rows[name] = {
            "budget": "" if run is None else str(from_dict(Budget, configs[name]["budget"])),
            "parameters": parameters(shape),
            "macs": macs(shape, round(seconds * SAMPLE_RATE)),
            "superb_macs": sum(superb_macs(shape).values()),
            "speed": speeds[name],
            "valid": {} if run is None else _losses(run),
            "kept": {
                "conv": shape.conv_channels,
                "heads": [len(h or ()) for h in shape.heads],
                "ffn": shape.ffn,
            },
        }
    return {
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "machine": machine() | versions(),
        "rows": rows,
    }


def _config(run: Path) -> dict[str, Any]:
    if not (run / "results.json").is_file() or not (run / "model").is_dir():
        raise ConfigError(f"{run} is not a finished run, allowed: a folder given to `compress --out`")
    return read_yaml(run / "config.yaml")


def _losses(run: Path) -> dict[str, float]:
    valid = read_json(run / "results.json", ConfigError)["valid"]
    return {name: scalars["loss"] for name, scalars in valid.items()}


def text(groups: dict[str, Any]) -> str:
    """Return all groups as Markdown."""
    return "\n\n".join(_group(title, results) for title, results in groups.items()) + "\n"


def _group(title: str, results: dict[str, Any]) -> str:
    rows, teacher = results["rows"], results["rows"][TEACHER]
    seconds, threads, facts = results["seconds"], results["threads"], results["machine"]
    head = ["", "parameters, M", f"MACs of {seconds:g} s, G", "SUPERB MACs, G"]
    head += [f"real-time factor, {precision} (× teacher)" for precision in PRECISIONS]
    losses = [loss for loss in LOSSES if any(loss in row["valid"] for row in rows.values())]
    head += [f"loss {LOSSES[loss]}" for loss in losses]
    lines = []
    for name, row in rows.items():
        speed, budget = row["speed"], f" ({row['budget']})" if row["budget"] else ""
        line = [f"{name}{budget}", f"{row['parameters'] / 1e6:.3f}", f"{row['macs'] / 1e9:.3f}"]
        line.append(f"{row['superb_macs'] / 1e9:.1f}")
        line += [f"{speed[p]:.4f} ({speed[p] / teacher['speed'][p]:.2f})" for p in PRECISIONS]
        line += [f"{row['valid'][loss]:.4f}" if loss in row["valid"] else "–" for loss in losses]
        lines.append(line)
    units = [
        [name, *(" ".join(map(str, row["kept"][kind])) for kind in ("conv", "heads", "ffn"))]
        for name, row in rows.items()
    ]
    measured = (
        f"{facts['processor']} ({facts['flags']}), {threads} thread{'s' * (threads > 1)}, "
        f"torch {facts['torch']}; batch 1, folded models in turns, the best of each."
    )
    return "\n\n".join(
        [
            f"### {title}",
            markdown.table(head, lines),
            measured,
            markdown.table(["kept", "conv channels", "heads", "FFN units"], units),
        ]
    )


def main(argv: list[str] | None = None) -> None:
    """Measure runs and add them to the page."""
    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.bench.budgets", description=__doc__)
    parser.add_argument("page", type=Path, help="a .md file with the markers of the numbers")
    parser.add_argument(
        "group", nargs="?", help="title of these runs; without it only the page is written anew"
    )
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN", help="folders of finished runs")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    arguments = parser.parse_args(argv)
    page, store = arguments.page, arguments.page.with_suffix(".json")
    groups = read_json(store, ConfigError) if store.exists() else {}
    if arguments.group:
        torch.set_num_threads(arguments.threads)
        groups[arguments.group] = measure(
            {name: Path(run) for name, _, run in (r.partition("=") for r in arguments.runs)}
        )
        write_text(store, json.dumps(groups, indent=1) + "\n")
    before = page.read_text(encoding="utf8")
    write_text(page, markdown.fill(before, BEGIN, END, text(groups), str(page)))
    print(page)


if __name__ == "__main__":
    main()
