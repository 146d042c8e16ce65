"""Draw where gates end under both constraints, as landing.svg: ``python docs/images/landing.py``.

``penalty=RUN projection=RUN`` first fills landing.json from the logs of two runs. They were made by::

    s3prl-dphubert compress demo --out RUN --set budget.constraint=penalty --set stage2=null \\
        --set stage1.updates=150 --set stage1.warmup=20 --set stage1.gate_lr=0.2 --set stage1.log_every=1 \\
        --set budget.warmup=30 --set budget.tolerance=1 --set data.batch.seconds_per_batch=8
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
STORE = HERE / "landing.json"
COLOURS = {"penalty": "#d08c3f", "projection": "#1f6f8b"}


def read(run):
    """Return updates, target and expected sparsity of a run's stage 1, rounded."""
    rows = [json.loads(row) for row in (run / "stage1" / "log.jsonl").read_text().splitlines()]
    names = ("update", "target_sparsity", "sparsity")
    return {name: [round(row[name], 4) for row in rows if "sparsity" in row] for name in names}


def draw(curves):
    """Return the figure of the curves by constraint."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    first = next(iter(curves.values()))
    axis.plot(first["update"], first["target_sparsity"], "--", color="#8a97a2", label="target")
    for name, curve in curves.items():
        label = f"constraint: {name}, {curve['sparsity'][-1]:.3f} at the end"
        axis.plot(curve["update"], curve["sparsity"], color=COLOURS[name], label=label)
    axis.set(xlabel="update of stage 1", ylabel="sparsity", ylim=(0, 0.85))
    axis.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    if len(sys.argv) > 1:
        runs = dict(argument.split("=", 1) for argument in sys.argv[1:])
        STORE.write_text(json.dumps({name: read(Path(run)) for name, run in runs.items()}) + "\n")
    draw(json.loads(STORE.read_text())).savefig(HERE / "landing.svg", metadata={"Date": None})
