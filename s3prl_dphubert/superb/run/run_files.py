"""Names of the files in the directory of a run, and of checkpoints.

::

    run.json  upstream.json  upstream.log
    TASK/prepare.log  sweep.json  score.json  failed.json
    TASK/[PART/]train[-lrRATE[-short]]/    one training: s3prl's expdir, with config.yaml and state.json
    TASK/[PART/]train[-lrRATE].log
    TASK/[PART/]evaluated.json  evaluate.log  failed.json
"""

from __future__ import annotations

from pathlib import Path

from ...utils.readers import is_zip

RUN, UPSTREAM = "run.json", "upstream.json"
TRAINING, CONFIG, STATE = "train", "config.yaml", "state.json"
EVALUATED, EVALUATE_LOG = "evaluated.json", "evaluate.log"
PREPARE_LOG, SWEEP = "prepare.log", "sweep.json"
_RATE, _SHORT = "-lr", "-short"


def format_rate(rate: float) -> str:
    """Write a learning rate in as few letters as tell it from all others, ``1e-04``."""
    short = f"{rate:.0e}"
    return short if float(short) == rate else f"{rate:g}"


def training_name(rate: float | None = None, short: bool = False) -> str:
    """Return the name of a training's folder.

    Args:
        rate: learning rate; ``None`` for the recipe's own.
        short: of the first stage of a sweep.
    """
    name = TRAINING if rate is None else f"{TRAINING}{_RATE}{format_rate(rate)}"
    return f"{name}{_SHORT}" if short else name


def rate_of_training(name: str) -> str:
    """Return the learning rate in the name of a training's folder, empty for the recipe's own."""
    return name.removeprefix(TRAINING).removeprefix(_RATE)


def step_in_name(checkpoint: Path) -> int:
    """Return the step in the name of a ``states-STEP.ckpt``."""
    return int(checkpoint.stem.partition("-")[2])


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to its end, which is where a zip file has its index."""
    return is_zip(checkpoint)
