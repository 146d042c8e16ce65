"""One training by s3prl's run_downstream, and evaluations of its checkpoints; both resume where they were.

A training has a folder: s3prl's ``expdir``, with ``config.yaml`` (the argument of ``-c``) and ``state.json``,
which records everything that the training depends on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...checkpoints.unpickler import read_foreign_pickle
from ...errors import CheckpointError, RunError
from ...utils.config_io import differences
from ...utils.files import write_text
from ...utils.readers import read_record
from ..metrics.parsers import Output
from .run_files import CONFIG, EVALUATE_LOG, EVALUATED, STATE, is_complete, step_in_name
from .slots import Slot
from .upstream_spec import UpstreamSpec
from .workers import jobs, logs
from .workers.launcher import Launcher, Watch

SEED = 1337  # s3prl's
VERSION = 2  # of the record of what a training was made from; 1 did not include the audio
LEAST_FREE = 50_000_000  # bytes on a disk below which a failure is taken for its being full
_MADE_FROM = "made_from"  # key of the record in state.json and evaluated.json


@dataclass(frozen=True)
class Experiment:
    """One training of a downstream model, and the evaluations of its checkpoints.

    Args:
        folder: of the training, absolute.
        downstream: as after ``-d``.
        config: as after ``-c``.
        upstream: for the training.
        evaluating: the same upstream with the options for evaluations.
        launcher: starts s3prl.
        seed: of the training.
        processes: of the training, each on its own GPU.
        lists: file -> digest of the corpus's file lists.
        audio: split -> number, duration and digest of its audio files.
        template: the configuration with placeholders for places, by which results are told apart.
        borrowed: the training is another run's, perhaps with another upstream, and is only evaluated.
    """

    folder: Path
    downstream: str
    config: Mapping[str, Any]
    upstream: UpstreamSpec
    evaluating: UpstreamSpec
    launcher: Launcher = field(repr=False)
    seed: int = SEED
    processes: int = 1
    lists: Mapping[str, str] = field(default_factory=dict)
    audio: Mapping[str, Any] = field(default_factory=dict)
    template: Mapping[str, Any] | None = None
    borrowed: bool = False

    @property
    def steps(self) -> int:
        """Number of steps of the training."""
        return self.config["runner"]["total_steps"]

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON gives it back; no path, since folders may move."""
        inputs = {
            "version": VERSION,
            "downstream": self.downstream,
            "config": self.config if self.template is None else self.template,
            "upstream": self.upstream.content,
            "seed": self.seed,
            "processes": self.processes,
            "lists": self.lists,
            "audio": self.audio,
        }
        return json.loads(json.dumps(inputs))

    @property
    def digest(self) -> str:
        """SHA-256 of :attr:`inputs`."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()

    @property
    def finished(self) -> bool:
        """Return whether the training has saved its last checkpoint."""
        return is_complete(self.folder / f"states-{self.steps}.ckpt")

    def last_checkpoint(self) -> Path | None:
        """Return the last complete checkpoint, after removing those that are half written."""
        for path in self.folder.glob("*.ckpt"):
            if not is_complete(path):
                path.unlink()
        return max(self.folder.glob("states-*.ckpt"), key=step_in_name, default=None)

    def claim(self, renew: bool = False) -> None:
        """Make the folder, or check that it belongs to a training with the same inputs.

        Args:
            renew: begin anew if the inputs differ, even if there are checkpoints.

        Raises:
            RunError: it holds checkpoints made from other inputs; the message names the differences.
        """
        recorded, inputs = read_record(self.folder / STATE), self.inputs
        if recorded.get(_MADE_FROM) == inputs:
            return
        if recorded and not renew and self.last_checkpoint() is not None:
            changes = _describe_changes(recorded.get(_MADE_FROM), inputs)
            raise RunError(f"{self.folder}: was made {changes}; choose another --out or remove it")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write_text(self.folder / CONFIG, yaml.safe_dump(dict(self.config), sort_keys=False))
        write_text(self.folder / STATE, json.dumps({_MADE_FROM: inputs}, indent=1) + "\n")

    def check_borrowed(self) -> None:
        """Check that another run's training is finished and differs in nothing but its upstream.

        Raises:
            RunError: naming the differences.
        """
        recorded = read_record(self.folder / STATE).get(_MADE_FROM)
        if recorded is None or not self.finished:
            raise RunError(f"{self.folder}: holds no finished training")
        inputs = {**self.inputs, "upstream": recorded.get("upstream")}
        if recorded != inputs:
            changes = _describe_changes(recorded, inputs)
            raise RunError(f"{self.folder}: was made {changes}")

    def train(self, log: Path, slot: Slot, watch: Watch = lambda: None, renew: bool = False) -> bool:
        """Train to the end, from the last complete checkpoint if there is one.

        Args:
            log: for the output of s3prl.
            slot: devices to train on.
            watch: called about twice a second meanwhile.
            renew: begin anew if the folder was made from other inputs.

        Returns:
            Whether there was anything to do.

        Raises:
            RunError: s3prl failed, or the folder was made from other inputs.
        """
        if logs.busy(log):
            raise RunError(f"{log}: {logs.BUSY}")
        self.claim(renew)
        if self.finished:
            return False
        last = self.last_checkpoint()
        if last is None:
            self._remove_leftovers()
            arguments = ["-d", self.downstream, "-c", str(self.folder / CONFIG), "-p", str(self.folder)]
            arguments += ["--seed", str(self.seed), *self.upstream.arguments]
        else:
            arguments = ["-e", str(last), "-o", _overrides(self.folder, self.upstream)]
        self._launch(["-m", "train", *arguments], log, slot, watch)
        if not self.finished:
            raise RunError(f"{self.folder}: s3prl ended without states-{self.steps}.ckpt; see {log}")
        return True

    def evaluate(
        self, checkpoint: Path, split: str, out: Path, slot: Slot, watch: Watch = lambda: None
    ) -> Output:
        """Evaluate a checkpoint, unless an earlier call has done so.

        Args:
            checkpoint: of this training.
            split: as after ``-t``.
            out: folder for the files that s3prl writes.
            slot: devices to compute on.
            watch: called about twice a second meanwhile.

        Raises:
            RunError: s3prl failed.
        """
        mark = self._evaluation_mark(split, step=step_of(checkpoint))
        arguments = ["-e", str(checkpoint), "-o", _overrides(out, self.evaluating, self.borrowed)]
        return self._evaluate(["-m", "evaluate", "-t", split, *arguments], mark, out, slot, watch)

    def is_evaluated(self, checkpoint: Path, split: str, out: Path) -> bool:
        """Return whether :meth:`evaluate` has nothing left to do."""
        mark = self._evaluation_mark(split, step=step_of(checkpoint))
        return read_record(out / EVALUATED).get(_MADE_FROM) == mark

    def evaluate_layer(
        self, layer: int, split: str, out: Path, slot: Slot, watch: Watch = lambda: None
    ) -> Output:
        """Evaluate a task without training on one hidden state; the rest as for :meth:`evaluate`."""
        out.mkdir(parents=True, exist_ok=True)
        config = out / CONFIG
        write_text(config, yaml.safe_dump(dict(self.config), sort_keys=False))
        arguments = ["-d", self.downstream, "-c", str(config), "-p", str(out), "-l", str(layer)]
        arguments += ["--seed", str(self.seed), *self.evaluating.arguments]
        mark = self._evaluation_mark(split, layer=layer)
        return self._evaluate(["-m", "evaluate", "-t", split, *arguments], mark, out, slot, watch)

    def is_layer_evaluated(self, layer: int, split: str, out: Path) -> bool:
        """Return whether :meth:`evaluate_layer` has nothing left to do."""
        return read_record(out / EVALUATED).get(_MADE_FROM) == self._evaluation_mark(split, layer=layer)

    def _evaluation_mark(self, split: str, **subject: int) -> dict[str, Any]:
        mark = {"of": self.digest, **subject, "split": split}
        if self.evaluating.content != self.upstream.content:
            mark["upstream"] = self.evaluating.content
        return json.loads(json.dumps(mark))

    def _evaluate(
        self, arguments: list[str], mark: dict[str, Any], out: Path, slot: Slot, watch: Watch
    ) -> Output:
        out.mkdir(parents=True, exist_ok=True)
        path, log = out / EVALUATED, out / EVALUATE_LOG
        if read_record(path).get(_MADE_FROM) == mark:
            return Output(logs.text(log), out)
        path.unlink(missing_ok=True)
        one_process = Slot(slot.device, slot.gpus.partition(",")[0])
        text = self._launch(arguments, log, one_process, watch)
        write_text(path, json.dumps({_MADE_FROM: mark}, indent=1) + "\n")
        return Output(text, out)

    def _launch(self, arguments: list[str], log: Path, slot: Slot, watch: Watch) -> str:
        """Start s3prl, and return its output.

        Raises:
            RunError: it failed; the message names a full disk, which libraries report in other words.
        """
        try:
            return self._start(arguments, log, slot, watch)
        except RunError as error:
            free = shutil.disk_usage(log.parent).free
            if free < LEAST_FREE:
                raise RunError(
                    f"{log.parent}: the disk is full, {free / 1e6:.0f} MB are left; {error}"
                ) from error
            raise

    def _start(self, arguments: list[str], log: Path, slot: Slot, watch: Watch) -> str:
        arguments = [*arguments, "--device", slot.device]
        if slot.device == "cpu" and slot.processes == 1:
            return self.launcher.run("downstream", arguments, log, log.parent, slot.environment, watch)
        job = ["downstream", *arguments]
        if slot.processes > 1:
            backend = "nccl" if slot.device == "cuda" else "gloo"
            job = ["several", str(slot.processes), "--backend", backend, *arguments]
        command = [sys.executable, "-m", jobs.__name__, *job]
        return self.launcher.program(command, log, log.parent, slot.environment, watch)

    def _remove_leftovers(self) -> None:
        """Remove the files of a training that was killed before its first checkpoint."""
        for path in self.folder.iterdir():
            if path.name not in (STATE, CONFIG):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _overrides(out: Path, upstream: UpstreamSpec, replace_upstream: bool = False) -> str:
    """Return s3prl's ``-o`` for the paths in a checkpoint, which may have moved since it was saved.

    Args:
        out: new ``expdir``.
        upstream: whose paths to use.
        replace_upstream: the checkpoint was trained with another upstream.
    """
    values: dict[str, str | None] = {"expdir": str(out), **upstream.paths}
    if replace_upstream:
        values["upstream"] = upstream.name
        values.setdefault("upstream_ckpt", upstream.checkpoint or None)
        values.setdefault("upstream_model_config", None)
    return ",,".join(f"args.{name}={value}" for name, value in values.items())


def step_of(checkpoint: Path) -> int:
    """Return the step at which a checkpoint was saved."""
    if checkpoint.stem.startswith("states-"):
        return step_in_name(checkpoint)
    return int(read_foreign_pickle(checkpoint)["Step"])


def best_score(checkpoint: Path) -> float:
    """Return the best score on the development set so far, which s3prl saves with the weights.

    Raises:
        CheckpointError: the checkpoint holds none.
    """
    states = read_foreign_pickle(checkpoint).get("Downstream")
    if not isinstance(states, dict) or "best_score" not in states:
        raise CheckpointError(f"{checkpoint}: holds no score on the development set")
    return float(states["best_score"])


def layer_weights(checkpoint: Path) -> tuple[float, ...]:
    """Return the weights of the hidden states (L + 1) that s3prl's featurizer learnt with the downstream.

    They sum to 1 and are empty where it took one hidden state only.
    """
    logits = (read_foreign_pickle(checkpoint).get("Featurizer") or {}).get("weights")
    return () if logits is None else tuple(logits.double().softmax(-1).tolist())


def _describe_changes(recorded: Any, inputs: Any) -> str:
    """Name the first five differences, as ``from something else: config.optimizer.lr 0.5 (was 0.1)``."""
    if not isinstance(recorded, dict) or recorded.get("version") != inputs["version"]:
        return "by an earlier version of this package, which recorded no audio and other paths"

    def shorten(value: Any) -> str:
        text = str(value)
        return text if len(text) <= 60 else f"{text[:57]}…"

    changes = sorted(differences(recorded, inputs))[:5]
    text = "; ".join(f"{name} {shorten(new)} (was {shorten(old)})" for name, (old, new) in changes)
    return f"from something else: {text}"
