"""The demo's second half: s3prl trains and evaluates speaker identification on three upstreams.

Below the folder that is given::

    corpus/               the embedded voices in VoxCeleb1's layout
    config.yaml           the recipe with the corpus's place
    fbank/, teacher/, compressed/   folders of run_downstream (-p), and what it said in evaluation
    fbank.train.log …     what it said in training
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, ResultError, RunError
from ..superb.run.experiment import Experiment
from ..superb.run.run_files import EVALUATE_LOG
from ..superb.run.slots import Slot
from ..superb.run.upstream_spec import UpstreamSpec
from ..superb.run.workers import logs
from ..superb.run.workers.launcher import Launcher
from ..superb.tasks import find
from ..utils import resources
from ..utils.config_io import merge, read_yaml
from ..utils.files import write_text
from ..utils.hashing import sha256_file
from ..utils.locking import folder_lock
from . import demo_speech

MISSING = "SID left out: s3prl is not installed; pip install 's3prl-dphubert[s3prl]' and run the demo again"
TASK = find("SID")


@dataclass(frozen=True)
class Upstream:
    """A row of the table.

    Attributes:
        name: of its folder.
        title: what the table calls it.
        parameters: how many it has.
        macs: of the seconds that the table names; ``None`` for what is no network.
        checkpoint: its directory; ``None`` for s3prl's fbank.
    """

    name: str
    title: str
    parameters: int = 0
    macs: int | None = None
    checkpoint: Path | None = None

    @property
    def s3prl(self) -> UpstreamSpec:
        """The same as s3prl is told of it."""
        if self.checkpoint is None:
            return UpstreamSpec(self.name)
        return UpstreamSpec("dphubert_local", str(self.checkpoint))


def installed() -> bool:
    """Whether there is an s3prl to run."""
    return importlib.util.find_spec("s3prl") is not None


def identify(
    upstreams: list[Upstream], out: Path, recipe: Path | None = None, speech: Path | None = None
) -> tuple[dict[str, float], float]:
    """Accuracy of each upstream on the test clips; what an earlier call finished is not done again.

    Args:
        upstreams: what to compare.
        out: folder for all of it.
        recipe: configuration of run_downstream without the corpus's place; by default
            ``downstream_recipes/demo_sid/config.yaml``.
        speech: as for :func:`~s3prl_dphubert.demo.demo_speech.choose`.

    Returns:
        Name -> accuracy, and the accuracy of always naming the most frequent voice, as fractions.

    Raises:
        RunError: s3prl failed (the message ends with the last lines of its log), or another process
            is at work in the folder.
        ConfigError: the recipe saves no checkpoint after its last step.
    """
    out = out.resolve()  # s3prl keeps paths in its checkpoints
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        clips = demo_speech.choose(speech)
        demo_speech.build(out / "corpus", clips)
        config = _configure(recipe or resources.find("downstream_recipes/demo_sid/config.yaml"), out)
        with Launcher(_environment(out)) as launcher:
            found = {row.name: _accuracy(row, out, config, launcher) for row in upstreams}
    return found, demo_speech.chance(clips)


def table(upstreams: list[Upstream], found: dict[str, float], chance: float, seconds: float) -> str:
    """The accuracies beside what each upstream costs, with a word on what they are worth."""
    rows = [f"{'upstream':<24}{'parameters (M)':>15}{f'MACs of {seconds:g} s (G)':>20}{'accuracy (%)':>14}"]
    for upstream in upstreams:
        macs = "–" if upstream.macs is None else f"{upstream.macs / 1e9:.3f}"
        size, score = f"{upstream.parameters / 1e6:.3f}", f"{100 * found[upstream.name]:.1f}"
        rows.append(f"{upstream.title:<24}{size:>15}{macs:>20}{score:>14}")
    rows.append(f"{'always the same voice':<24}{'–':>15}{'–':>20}{100 * chance:>14.1f}")
    return "\n".join(rows)


def _environment(out: Path) -> dict[str, str]:
    """The lists of files that are kept of the corpus belong beside it, not in the user's cache. Small models
    gain nothing from a second thread, and lose much where others use the machine."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return {"S3PRL_DPHUBERT_CACHE": str(out / "cache"), "OMP_NUM_THREADS": threads}


def _configure(recipe: Path, out: Path) -> dict[str, Any]:
    """The recipe with the corpus's place filled in, which is written, too."""
    places = {"file_path": str(out / "corpus"), "meta_data": str(out / "corpus" / demo_speech.LIST)}
    values = merge(read_yaml(recipe), {"downstream_expert": {"datarc": places}})
    steps, every = (values.get("runner", {}).get(name) for name in ("total_steps", "save_step"))
    if not isinstance(steps, int) or not isinstance(every, int) or every < 1 or steps < 1 or steps % every:
        raise ConfigError(
            f"{recipe}: runner.save_step is {every!r}, allowed: a divisor of runner.total_steps, {steps!r}"
        )
    write_text(out / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    return values


def _accuracy(row: Upstream, out: Path, config: dict[str, Any], launcher: Launcher) -> float:
    """Accuracy of one upstream; a folder that was made from something else is made anew."""
    clips = sha256_file(out / "corpus" / demo_speech.LIST)
    folder, where = out / row.name, Slot("cpu")
    experiment = Experiment(
        folder, TASK.downstream, config, row.s3prl, row.s3prl, launcher, lists={demo_speech.LIST: clips}
    )
    experiment.claim(renew=True)
    last = folder / f"states-{experiment.steps}.ckpt"
    if not experiment.finished:
        log = out / f"{row.name}.train.log"
        _told(row, f"training, {experiment.steps} steps", lambda: experiment.train(log, where))
    if not experiment.is_evaluated(last, TASK.split, folder):
        _told(row, "evaluation", lambda: experiment.evaluate(last, TASK.split, folder, where))
    output = experiment.evaluate(last, TASK.split, folder, where)
    try:
        accuracy = TASK.read({"": output})["acc"]
    except ResultError as error:
        raise RunError(f"{error}; the last lines of {folder / EVALUATE_LOG}:\n{logs.tail(output.text)}") from error
    if fault := TASK.metric("acc").fault(accuracy):
        raise RunError(f"{fault}; the last lines of {folder / EVALUATE_LOG}:\n{logs.tail(output.text)}")
    return accuracy / 100


def _told(row: Upstream, what: str, work: Callable[[], object]) -> None:
    """Do something, in a line that says what and how long it took."""
    print(f"  {row.title:<24}{what:<24}", end="", flush=True)
    started = time.monotonic()
    try:
        work()
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - started:4.0f} s", flush=True)
