"""The report of a benchmark: JSON, Markdown and a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from ..utils import markdown
from ..utils.files import replacing, write_text
from .inference import Benchmark
from .rows import SpeedRow, baselines, rows
from .subjects import Subject
from .turn_log import TurnLog

OWN, OTHERS, PRODUCTS, INK = "#1f6f8b", "#c3ccd5", "#d1495b", "#3c4650"

INTRODUCTION = """# Speed

Seconds of compute per second of audio: less is faster, and 0.1 is ten times faster than real time.

- Models have random weights of their real shapes, since speed does not depend on them.
- Each subject runs in its own process. In each turn all run once, one after another, so that they meet the
  same noise of the machine.
- *Median* and *quartiles* are over all turns.
- A ratio (×) is the median, over the turns, of a subject's time by the other's in the same turn.
- *Products* is the time of plain square matrix products of PyTorch with as many multiply-accumulates, in the
  same precision. Folded models can be below it where products are slower than convolutions, or where they
  need fewer operations, as in the positional convolution, which goes through the Fourier transform.
- Padding does not count as audio.
- *Peak memory* is that of a process alone, which ran the shorter batches before.

## How it was made

```sh
{command}
```
"""

STARTS = """## Until the first answer

Time to load the model, without imports, and of the first call after that, with the shortest batch. The error
is that of the last hidden state, relative to the unfolded float32 model of the same weights.

"""


def write(benchmark: Benchmark, log: TurnLog, command: str) -> list[Path]:
    """Write ``speed.json``, ``speed.md`` and ``speed.png`` into the folder of the benchmark.

    Args:
        benchmark: configuration of the benchmark.
        log: its measurements.
        command: command line that the page shows.
    """
    subjects = benchmark.subjects()
    table = rows(log, subjects, benchmark.workloads)
    paths = [benchmark.out / f"speed.{suffix}" for suffix in ("json", "md", "png")]
    content = {
        "command": command,
        **{name: log.setting[name] for name in ("machine", "versions", "threads")},
        "rows": [asdict(row) for row in table],
        "starts": log.select("start"),
        "errors": log.select("error"),
    }
    write_text(paths[0], json.dumps(content, indent=1) + "\n")
    write_text(paths[1], page(log, subjects, table, command))
    plot(table, paths[2])
    return paths


def page(log: TurnLog, subjects: Sequence[Subject], table: Sequence[SpeedRow], command: str) -> str:
    """Return the page in Markdown; for the arguments see :func:`write`."""
    parts = [
        INTRODUCTION.format(command=command),
        "![Seconds per second of audio](speed.png)\n",
        _facts(log),
    ]
    names = [name for name in baselines(subjects) if name in {row.subject for row in table}]
    for workload in dict.fromkeys(row.workload for row in table):
        selected = [row for row in table if row.workload == workload]
        ratios = [f"× {name}" for name in names]
        head = ["", "median", "quartiles", "best", "products", *ratios, "peak memory"]
        lines = [[_cell(row.subject), *_numbers(row, names)] for row in selected]
        runs = f"{selected[0].runs} runs each{_load(log, workload)}."
        parts.append(f"## {workload}\n\n{runs}\n\n{markdown.table(head, lines)}\n")
    return "\n".join([*parts, _starts(log)])


def _load(log: TurnLog, workload: str) -> str:
    """Return the load average of the machine during the turns."""
    loads = [turn["load"] for turn in log.select("turn", workload=workload) if turn.get("load") is not None]
    if not loads:
        return ""
    own = log.setting["threads"]
    return f"; load average {statistics.median(loads):.1f}, the benchmark's own {own} included"


def _facts(log: TurnLog) -> str:
    facts = log.setting["machine"] | {"threads": log.setting["threads"]} | log.setting["versions"]
    return markdown.table(["", ""], ([name, str(value)] for name, value in facts.items())) + "\n"


def _numbers(row: SpeedRow, names: Sequence[str]) -> list[str]:
    return [
        f"{row.median:.4f}",
        f"{row.low:.4f}–{row.high:.4f}",
        f"{row.best:.4f}",
        "" if row.products is None else f"{row.products:.4f}",
        *(f"{row.ratios[name]:.2f}" for name in names),
        "" if row.peak is None else f"{row.peak / 2**20:,.0f} MiB",
    ]


def _starts(log: TurnLog) -> str:
    """Return the table of load time, first call and error of every subject."""
    errors = {entry["subject"]: entry["error"] for entry in log.select("error")}
    latest = {entry["subject"]: entry for entry in log.select("start")}
    head = ["", "load, s", "first call, s", "relative error"]
    lines = [
        [
            _cell(name),
            f"{e['load']:.2f}",
            f"{e['first']:.3f}",
            f"{errors[name]:.1e}" if name in errors else "",
        ]
        for name, e in latest.items()
        if not name.startswith("matrix products")
    ]
    return STARTS + markdown.table(head, lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "/")


def plot(table: Sequence[SpeedRow], target: Path) -> None:
    """Draw the medians with quartiles as bars, a panel per batch, and marks for plain matrix products."""
    workloads = list(dict.fromkeys(row.workload for row in table))
    names = list(dict.fromkeys(row.subject for row in table))
    size = (3 + 3.2 * max(1, len(workloads)), 1.4 + 0.32 * max(1, len(names)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, max(1, len(workloads)), sharey=True, squeeze=False)[0]
    for panel, workload in zip(panels, workloads, strict=False):
        selected = [row for row in table if row.workload == workload]
        y = [names.index(row.subject) for row in selected]
        colors = [
            OTHERS if row.subject.startswith(("published", "transformers", "s3prl")) else OWN
            for row in selected
        ]
        spread = [[row.median - row.low for row in selected], [row.high - row.median for row in selected]]
        panel.barh(y, [row.median for row in selected], color=colors, xerr=spread, error_kw={"ecolor": INK})
        marked = [(row.products, at) for row, at in zip(selected, y, strict=True) if row.products is not None]
        panel.scatter(
            [x for x, _ in marked], [at for _, at in marked], marker="|", s=90, color=PRODUCTS, zorder=3
        )
        panel.set(title=workload, xlabel="seconds per second of audio")
        panel.grid(axis="x", linewidth=0.4)
        panel.set_axisbelow(True)
    panels[0].set_yticks(range(len(names)), names, fontsize=8)
    panels[0].invert_yaxis()
    figure.suptitle("Less is faster. Red: plain matrix products of the same MACs", fontsize=9)
    with replacing(target) as partial:
        figure.savefig(partial, dpi=130, format="png")
