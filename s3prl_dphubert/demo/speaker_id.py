"""Second half of the demo: s3prl trains and evaluates speaker identification on three upstreams.

Files below the output folder::

    corpus/               the embedded voices in the layout of VoxCeleb1
    config.yaml           the recipe with the location of the corpus
    fbank/, teacher/, compressed/   folders of run_downstream (-p), with the logs of the evaluations
    fbank.train.log …     logs of the trainings
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
from . import voice_corpus

MISSING = "SID left out: s3prl is not installed; pip install 's3prl-dphubert[s3prl]' and run the demo again"
TASK = find("SID")


@dataclass(frozen=True)
class ComparedUpstream:
    """An upstream, as a row of the table.

    Attributes:
        name: name of its folder.
        title: name in the table.
        parameters: number of parameters.
        macs: MACs for the seconds that the table gives; ``None`` if it is not a network.
        checkpoint: checkpoint directory; ``None`` for s3prl's fbank.
    """

    name: str
    title: str
    parameters: int = 0
    macs: int | None = None
    checkpoint: Path | None = None

    @property
    def spec(self) -> UpstreamSpec:
        """The same upstream for s3prl."""
        if self.checkpoint is None:
            return UpstreamSpec(self.name)
        return UpstreamSpec("dphubert_local", str(self.checkpoint))


def installed() -> bool:
    """Return whether s3prl is installed."""
    return importlib.util.find_spec("s3prl") is not None


def identify(
    upstreams: list[ComparedUpstream], out: Path, recipe: Path | None = None, speech: Path | None = None
) -> tuple[dict[str, float], float]:
    """Measure the accuracy of each upstream on the test clips; finished steps are not repeated.

    Args:
        upstreams: upstreams to compare.
        out: output folder.
        recipe: configuration of run_downstream without the location of the corpus; by default
            ``downstream_recipes/demo_sid/config.yaml``.
        speech: as for :func:`~s3prl_dphubert.demo.voice_corpus.choose`.

    Returns:
        Name -> accuracy, and the accuracy of always naming the most frequent voice, both as fractions.

    Raises:
        RunError: s3prl failed (the message ends with the last lines of its log), or another process
            uses the folder.
        ConfigError: the recipe saves no checkpoint after the last step.
    """
    out = out.resolve()  # s3prl keeps paths in its checkpoints
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        clips = voice_corpus.choose(speech)
        voice_corpus.build(out / "corpus", clips)
        config = _configure(recipe or resources.find("downstream_recipes/demo_sid/config.yaml"), out)
        with Launcher(_environment(out)) as launcher:
            accuracies = {each.name: _accuracy(each, out, config, launcher) for each in upstreams}
    return accuracies, voice_corpus.chance(clips)


def table(
    upstreams: list[ComparedUpstream], accuracies: dict[str, float], chance: float, seconds: float
) -> str:
    """Tabulate cost and accuracy of each upstream.

    Args:
        upstreams: the upstreams.
        accuracies: name -> accuracy as a fraction.
        chance: accuracy of a constant guess.
        seconds: length of the audio that the MACs are given for.
    """
    rows = [f"{'upstream':<24}{'parameters (M)':>15}{f'MACs of {seconds:g} s (G)':>20}{'accuracy (%)':>14}"]
    for upstream in upstreams:
        macs = "–" if upstream.macs is None else f"{upstream.macs / 1e9:.3f}"
        size, score = f"{upstream.parameters / 1e6:.3f}", f"{100 * accuracies[upstream.name]:.1f}"
        rows.append(f"{upstream.title:<24}{size:>15}{macs:>20}{score:>14}")
    rows.append(f"{'always the same voice':<24}{'–':>15}{'–':>20}{100 * chance:>14.1f}")
    return "\n".join(rows)


def _environment(out: Path) -> dict[str, str]:
    """Keep the cached lists of files with the corpus rather than in the user's cache, and use one thread.

    Small models gain nothing from a second thread, and lose much if other processes use the machine.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return {"S3PRL_DPHUBERT_CACHE": str(out / "cache"), "OMP_NUM_THREADS": threads}


def _configure(recipe: Path, out: Path) -> dict[str, Any]:
    """Return the recipe with the location of the corpus, and write it to ``config.yaml``."""
    paths = {"file_path": str(out / "corpus"), "meta_data": str(out / "corpus" / voice_corpus.LIST)}
    values = merge(read_yaml(recipe), {"downstream_expert": {"datarc": paths}})
    steps, every = (values.get("runner", {}).get(name) for name in ("total_steps", "save_step"))
    if not isinstance(steps, int) or not isinstance(every, int) or every < 1 or steps < 1 or steps % every:
        raise ConfigError(
            f"{recipe}: runner.save_step is {every!r}, allowed: a divisor of runner.total_steps, {steps!r}"
        )
    write_text(out / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    return values


def _accuracy(upstream: ComparedUpstream, out: Path, config: dict[str, Any], launcher: Launcher) -> float:
    """Train and evaluate one upstream; a folder made from other settings is replaced."""
    clips = sha256_file(out / "corpus" / voice_corpus.LIST)
    folder, where = out / upstream.name, Slot("cpu")
    experiment = Experiment(
        folder,
        TASK.downstream,
        config,
        upstream.spec,
        upstream.spec,
        launcher,
        lists={voice_corpus.LIST: clips},
    )
    experiment.claim(renew=True)
    last = folder / f"states-{experiment.steps}.ckpt"
    if not experiment.finished:
        log = out / f"{upstream.name}.train.log"
        _timed(upstream, f"training, {experiment.steps} steps", lambda: experiment.train(log, where))
    if not experiment.is_evaluated(last, TASK.split, folder):
        _timed(upstream, "evaluation", lambda: experiment.evaluate(last, TASK.split, folder, where))
    output = experiment.evaluate(last, TASK.split, folder, where)
    try:
        accuracy = TASK.read({"": output})["acc"]
    except ResultError as error:
        raise RunError(
            f"{error}; the last lines of {folder / EVALUATE_LOG}:", detail=logs.tail(output.text)
        ) from error
    if fault := TASK.metric("acc").fault(accuracy):
        raise RunError(f"{fault}; the last lines of {folder / EVALUATE_LOG}:", detail=logs.tail(output.text))
    return accuracy / 100


def _timed(upstream: ComparedUpstream, step: str, work: Callable[[], object]) -> None:
    """Do some work, and print a line with the name of the step and its duration."""
    print(f"  {upstream.title:<24}{step:<24}", end="", flush=True)
    started = time.monotonic()
    try:
        work()
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - started:4.0f} s", flush=True)
