"""One training by s3prl's run_downstream, and evaluations of its checkpoints; both go on where they were.

A training has a folder: s3prl's ``expdir``, with ``config.yaml`` (what ``-c`` names) and ``state.json``,
which says what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...checkpoints.unpickler import read_foreign_pickle
from ...errors import CheckpointError, RunError
from ...utils.config_io import differences
from ...utils.files import read_json, write_text
from ..metrics.parsers import Output
from .upstream_spec import Upstream
from .workers import jobs, logs
from .workers.launcher import Launcher, Watch

STATE, CONFIG, EVALUATED, LOG = "state.json", "config.yaml", "evaluated.json", "evaluate.log"
SEED = 1337  # s3prl's


@dataclass(frozen=True)
class Where:
    """On what a process computes.

    Args:
        device: as after ``--device``.
        gpus: CUDA_VISIBLE_DEVICES; empty leaves what there is.
        processes: of a training.
    """

    device: str = "cpu"
    gpus: str = ""
    processes: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the process."""
        return {"CUDA_VISIBLE_DEVICES": self.gpus} if self.gpus else {}


@dataclass(frozen=True)
class Experiment:
    """One training of a downstream model, and what is evaluated with it.

    Args:
        folder: of the training, absolute.
        downstream: as after ``-d``.
        config: as after ``-c``.
        upstream: whose hidden states it takes.
        evaluating: the same upstream as evaluations are given it.
        launcher: starts s3prl.
        seed: of the training.
        processes: that train, each on its GPU.
        lists: digests of the corpus's lists of files, whatever their keys mean.
        borrowed: whether it is another run's, perhaps with another upstream: it is only evaluated.
    """

    folder: Path
    downstream: str
    config: Mapping[str, Any]
    upstream: Upstream
    evaluating: Upstream
    launcher: Launcher = field(repr=False)
    seed: int = SEED
    processes: int = 1
    lists: Mapping[str, str] = field(default_factory=dict)
    borrowed: bool = False

    @property
    def steps(self) -> int:
        """Steps of the training."""
        return self.config["runner"]["total_steps"]

    @property
    def made_from(self) -> dict[str, Any]:
        """All that the result depends on, as JSON has it."""
        told = {
            "downstream": self.downstream,
            "config": self.config,
            "upstream": self.upstream.content,
            "seed": self.seed,
            "processes": self.processes,
            "lists": self.lists,
        }
        return json.loads(json.dumps(told))

    @property
    def key(self) -> str:
        """A digest of all that the result depends on."""
        return hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()

    @property
    def finished(self) -> bool:
        """Whether the training has come to its end."""
        return is_whole(self.folder / f"states-{self.steps}.ckpt")

    def claim(self, renew: bool = False) -> None:
        """Make the folder, or check that what is in it was made from the same.

        Args:
            renew: begin anew where it was made from something else, even if it holds checkpoints.

        Raises:
            RunError: it holds checkpoints made from something else; the message says what differs.
        """
        known, told = read_json(self.folder / STATE), self.made_from
        if known.get("made_from") == told:
            return
        if known and not renew and self.last() is not None:
            raise RunError(
                f"{self.folder}: was made from something else: {_changes(known.get('made_from'), told)}; "
                "choose another --out or remove it"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write_text(self.folder / CONFIG, yaml.safe_dump(dict(self.config), sort_keys=False))
        write_text(self.folder / STATE, json.dumps({"made_from": told}, indent=1) + "\n")

    def borrow(self) -> None:
        """Refuse a training of another run that is not finished, or differs in more than its upstream.

        Raises:
            RunError: the message says what differs.
        """
        known = read_json(self.folder / STATE).get("made_from")
        if known is None or not self.finished:
            raise RunError(f"{self.folder}: holds no finished training")
        told = {**self.made_from, "upstream": known.get("upstream")}
        if known != told:
            raise RunError(f"{self.folder}: was made from something else: {_changes(known, told)}")

    def train(self, log: Path, where: Where, watch: Watch = lambda: None, renew: bool = False) -> bool:
        """Train to the end, from the last whole checkpoint where there is one.

        Args:
            log: for what s3prl says.
            where: it computes.
            watch: called now and then.
            renew: begin anew where the folder was made from something else.

        Returns:
            Whether there was anything to do.

        Raises:
            RunError: s3prl failed, or the folder was made from something else.
        """
        if logs.busy(log):
            raise RunError(f"{log}: {logs.BUSY}")
        self.claim(renew)
        if self.finished:
            return False
        last = self.last()
        if last is None:
            self._clean()
            arguments = ["-d", self.downstream, "-c", str(self.folder / CONFIG), "-p", str(self.folder)]
            arguments += ["--seed", str(self.seed), *self.upstream.arguments]
        else:
            arguments = ["-e", str(last), "-o", _here(self.folder, self.upstream)]
        self._start(["-m", "train", *arguments], log, where, watch)
        if not self.finished:
            raise RunError(f"{self.folder}: s3prl ended without states-{self.steps}.ckpt; see {log}")
        return True

    def evaluate(
        self, checkpoint: Path, split: str, out: Path, where: Where, watch: Watch = lambda: None
    ) -> Output:
        """Evaluate a checkpoint; what an earlier call finished is not done again.

        Args:
            checkpoint: of this training.
            split: as after ``-t``.
            out: folder for what s3prl writes.
            where: it computes.
            watch: called now and then.

        Raises:
            RunError: s3prl failed.
        """
        told = self._told(checkpoint, split)
        arguments = ["-e", str(checkpoint), "-o", _here(out, self.evaluating, self.borrowed)]
        return self._evaluate(["-m", "evaluate", "-t", split, *arguments], told, out, where, watch)

    def evaluated(self, checkpoint: Path, split: str, out: Path) -> bool:
        """Whether an earlier call of :meth:`evaluate` has finished that."""
        return read_json(out / EVALUATED).get("made_from") == self._told(checkpoint, split)

    def _told(self, checkpoint: Path, split: str) -> dict[str, Any]:
        return {"of": self.key, "step": step_of(checkpoint), "split": split}

    def search(self, layer: int, split: str, out: Path, where: Where, watch: Watch = lambda: None) -> Output:
        """Evaluate a task without training on one of the hidden states; the rest as for :meth:`evaluate`."""
        told = self._searching(layer, split)
        out.mkdir(parents=True, exist_ok=True)
        config = out / CONFIG
        write_text(config, yaml.safe_dump(dict(self.config), sort_keys=False))
        start = ["-d", self.downstream, "-c", str(config), "-p", str(out), "-l", str(layer)]
        start += ["--seed", str(self.seed), *self.evaluating.arguments]
        return self._evaluate(["-m", "evaluate", "-t", split, *start], told, out, where, watch)

    def searched(self, layer: int, split: str, out: Path) -> bool:
        """Whether an earlier call of :meth:`search` has finished that."""
        return read_json(out / EVALUATED).get("made_from") == self._searching(layer, split)

    def _searching(self, layer: int, split: str) -> dict[str, Any]:
        return {"of": self.key, "layer": layer, "split": split}

    def last(self) -> Path | None:
        """The last whole checkpoint, rid of those that were half written."""
        for path in self.folder.glob("*.ckpt"):
            if not is_whole(path):
                path.unlink()
        return max(self.folder.glob("states-*.ckpt"), key=step_of_name, default=None)

    def _evaluate(
        self, arguments: list[str], told: dict[str, Any], out: Path, where: Where, watch: Watch
    ) -> Output:
        out.mkdir(parents=True, exist_ok=True)
        mark, log = out / EVALUATED, out / LOG
        if read_json(mark).get("made_from") == told:
            return Output(logs.text(log), out)
        mark.unlink(missing_ok=True)
        alone = Where(where.device, where.gpus.partition(",")[0])
        text = self._start(arguments, log, alone, watch)
        write_text(mark, json.dumps({"made_from": told}, indent=1) + "\n")
        return Output(text, out)

    def _start(self, arguments: list[str], log: Path, where: Where, watch: Watch) -> str:
        arguments = [*arguments, "--device", where.device]
        told = log, log.parent, where.environment, watch
        if where.device == "cpu" and where.processes == 1:
            return self.launcher.run("downstream", arguments, *told)
        job = ["downstream", *arguments]
        if where.processes > 1:
            backend = "nccl" if where.device == "cuda" else "gloo"
            job = ["several", str(where.processes), "--backend", backend, *arguments]
        return self.launcher.program([sys.executable, "-m", jobs.__name__, *job], *told)

    def _clean(self) -> None:
        """Remove what a training left that was killed before its first checkpoint."""
        for path in self.folder.iterdir():
            if path.name not in (STATE, CONFIG):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _here(out: Path, upstream: Upstream, other: bool = False) -> str:
    """s3prl's ``-o`` for places that a checkpoint remembers and that may have changed.

    With ``other`` for another upstream than it was trained with.
    """
    places: dict[str, str | None] = {"expdir": str(out), **upstream.places}
    if other:
        places["upstream"] = upstream.name
        places.setdefault("upstream_ckpt", upstream.checkpoint or None)
        places.setdefault("upstream_model_config", None)
    return ",,".join(f"args.{name}={place}" for name, place in places.items())


def is_whole(checkpoint: Path) -> bool:
    """Whether it was written to its end, where its index is."""
    return zipfile.is_zipfile(checkpoint)


def step_of_name(checkpoint: Path) -> int:
    """The step in the name of a ``states-N.ckpt``."""
    return int(checkpoint.stem.partition("-")[2])


def step_of(checkpoint: Path) -> int:
    """The step at which a checkpoint was saved."""
    if checkpoint.stem.startswith("states-"):
        return step_of_name(checkpoint)
    return int(read_foreign_pickle(checkpoint)["Step"])


def best_score(checkpoint: Path) -> float:
    """The best score on the development set up to a checkpoint; s3prl keeps it with the weights.

    Raises:
        CheckpointError: there is none.
    """
    states = read_foreign_pickle(checkpoint).get("Downstream")
    if not isinstance(states, dict) or "best_score" not in states:
        raise CheckpointError(f"{checkpoint}: holds no score on the development set")
    return float(states["best_score"])


def _changes(known: Any, told: Any) -> str:
    """The first differences, for a message."""
    found = sorted(differences(known, told))[:5]
    return "; ".join(f"{name} {_short(new)} (was {_short(old)})" for name, (old, new) in found)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
