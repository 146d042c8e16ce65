"""The report of a benchmark: JSON, Markdown and a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from ..utils import markdown as pages
from ..utils.files import replacing, write_text
from .inference import Benchmark
from .rows import Row, baselines, rows
from .subjects import Subject
from .turn_log import Record

OWN, OTHERS, PRODUCTS, INK = "#1f6f8b", "#c3ccd5", "#d1495b", "#3c4650"

INTRODUCTION = """# Speed

Seconds of compute per second of audio: less is faster, and 0.1 is ten times faster than real time.

- Models have random weights of their real shapes, since speed does not depend on them.
- Each subject runs in a process of its own. In each turn all run once, one after another, so that they meet the
  same noise of the machine.
- *Median* and *quartiles* are over all turns.
- A ratio (×) is the median, over the turns, of a subject's time by the other's in the same turn.
- *Products* is the time of plain square matrix products of PyTorch with as many multiply-accumulates, in the
  same precision. Folded models can be below it where products are slower than convolutions, or where they need
  fewer operations, as in the positional convolution, which goes through the Fourier transform.
- Padding does not count as audio.
- *Peak memory* is that of a process alone, which ran the shorter batches before.

## How it was made

```sh
{command}
```
"""

STARTS = """## Until the first answer

Reading the model from its files and making it ready, imports excepted; the first call after that, with the
shortest batch. The error is that of the last hidden state, relative to the unfolded float32 model of the
same weights.

"""


def write(benchmark: Benchmark, record: Record, command: str) -> list[Path]:
    """Write ``speed.json``, ``speed.md`` and ``speed.png`` into the benchmark's folder."""
    subjects = benchmark.subjects()
    found = rows(record, subjects, benchmark.workloads)
    paths = [benchmark.out / f"speed.{suffix}" for suffix in ("json", "md", "png")]
    content = {
        "command": command,
        **{name: record.setting[name] for name in ("machine", "versions", "threads")},
        "rows": [asdict(row) for row in found],
        "starts": record.of("start"),
        "errors": record.of("error"),
    }
    write_text(paths[0], json.dumps(content, indent=1) + "\n")
    write_text(paths[1], markdown(record, subjects, found, command))
    plot(found, paths[2])
    return paths


def markdown(record: Record, subjects: Sequence[Subject], found: Sequence[Row], command: str) -> str:
    """The whole text."""
    parts = [
        INTRODUCTION.format(command=command),
        "![Seconds per second of audio](speed.png)\n",
        _facts(record),
    ]
    names = [name for name in baselines(subjects) if name in {row.subject for row in found}]
    for workload in dict.fromkeys(row.workload for row in found):
        chosen = [row for row in found if row.workload == workload]
        head = [
            "",
            "median",
            "quartiles",
            "best",
            "products",
            *(f"× {name}" for name in names),
            "peak memory",
        ]
        lines = [[_cell(row.subject), *_numbers(row, names)] for row in chosen]
        runs = f"{chosen[0].runs} runs each{_load(record, workload)}."
        parts.append(f"## {workload}\n\n{runs}\n\n{pages.table(head, lines)}\n")
    return "\n".join([*parts, _starts(record)])


def _load(record: Record, workload: str) -> str:
    """How busy the machine was."""
    loads = [turn["load"] for turn in record.of("turn", workload=workload) if turn.get("load") is not None]
    if not loads:
        return ""
    own = record.setting["threads"]
    return f"; load average {statistics.median(loads):.1f}, the benchmark's own {own} included"


def _facts(record: Record) -> str:
    facts = record.setting["machine"] | {"threads": record.setting["threads"]} | record.setting["versions"]
    return pages.table(["", ""], ([name, str(value)] for name, value in facts.items())) + "\n"


def _numbers(row: Row, names: Sequence[str]) -> list[str]:
    return [
        f"{row.median:.4f}",
        f"{row.low:.4f}–{row.high:.4f}",
        f"{row.best:.4f}",
        "" if row.products is None else f"{row.products:.4f}",
        *(f"{row.ratios[name]:.2f}" for name in names),
        "" if row.peak is None else f"{row.peak / 2**20:,.0f} MiB",
    ]


def _starts(record: Record) -> str:
    """Load time, first call and error of every subject."""
    errors = {entry["subject"]: entry["error"] for entry in record.of("error")}
    latest = {entry["subject"]: entry for entry in record.of("start")}
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
    return STARTS + pages.table(head, lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "/")


def plot(found: Sequence[Row], target: Path) -> None:
    """Bars of the medians with their quartiles, a panel for each batch; a mark where products alone are."""
    workloads = list(dict.fromkeys(row.workload for row in found))
    names = list(dict.fromkeys(row.subject for row in found))
    size = (3 + 3.2 * max(1, len(workloads)), 1.4 + 0.32 * max(1, len(names)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, max(1, len(workloads)), sharey=True, squeeze=False)[0]
    for panel, workload in zip(panels, workloads, strict=False):
        chosen = [row for row in found if row.workload == workload]
        y = [names.index(row.subject) for row in chosen]
        colors = [
            OTHERS if row.subject.startswith(("published", "transformers", "s3prl")) else OWN
            for row in chosen
        ]
        spread = [[row.median - row.low for row in chosen], [row.high - row.median for row in chosen]]
        panel.barh(y, [row.median for row in chosen], color=colors, xerr=spread, error_kw={"ecolor": INK})
        marked = [(row.products, at) for row, at in zip(chosen, y, strict=True) if row.products is not None]
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
