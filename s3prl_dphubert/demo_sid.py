"""The demo's second half: s3prl trains and evaluates speaker identification on three upstreams.

Below the folder that is given::

    corpus/               the embedded voices in VoxCeleb1's layout
    config.yaml           what run_downstream is given as -c
    fbank/, teacher/, compressed/   its folders (-p), each with state.json
    fbank.train.log …     what it said
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import resources, voices
from .errors import ConfigError, RunError
from .files import write_text
from .ownership import locked
from .settings import merge, read_yaml

MISSING = "SID left out: s3prl is not installed; pip install 's3prl-dphubert[s3prl]' and run the demo again"
SHOWN = 15  # lines of a log that an error repeats


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
    def arguments(self) -> list[str]:
        """How run_downstream is told of it."""
        if self.checkpoint is None:
            return ["-u", self.name]
        return ["-u", "dphubert_local", "-k", str(self.checkpoint.resolve())]

    @property
    def content(self) -> bytes:
        """What its accuracy depends on."""
        files = sorted(self.checkpoint.iterdir()) if self.checkpoint else []
        return b"\0".join(path.read_bytes() for path in files if path.suffix in (".json", ".safetensors"))


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
        speech: as for :func:`~s3prl_dphubert.voices.choose`.

    Returns:
        Name -> accuracy, and the accuracy of always naming the most frequent voice, as fractions.

    Raises:
        RunError: s3prl failed (the message ends with the last lines of its log), or another process
            is at work in the folder.
        ConfigError: the recipe saves no checkpoint after its last step.
    """
    out = out.resolve()  # s3prl keeps paths in its checkpoints
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        clips = voices.choose(speech)
        voices.build(out / "corpus", clips)
        config = _configure(recipe or resources.find("downstream_recipes/demo_sid/config.yaml"), out)
        found = {upstream.name: _Experiment(upstream, out, config).accuracy() for upstream in upstreams}
    return found, voices.chance(clips)


def table(upstreams: list[Upstream], found: dict[str, float], chance: float, seconds: float) -> str:
    """The accuracies beside what each upstream costs, with a word on what they are worth."""
    rows = [f"{'upstream':<24}{'parameters (M)':>15}{f'MACs of {seconds:g} s (G)':>20}{'accuracy (%)':>14}"]
    for upstream in upstreams:
        macs = "–" if upstream.macs is None else f"{upstream.macs / 1e9:.3f}"
        size, score = f"{upstream.parameters / 1e6:.3f}", f"{100 * found[upstream.name]:.1f}"
        rows.append(f"{upstream.title:<24}{size:>15}{macs:>20}{score:>14}")
    rows.append(f"{'always the same voice':<24}{'–':>15}{'–':>20}{100 * chance:>14.1f}")
    return "\n".join(rows)


def _configure(recipe: Path, out: Path) -> Path:
    """Write the recipe with the corpus's place filled in."""
    places = {"file_path": str(out / "corpus"), "meta_data": str(out / "corpus" / voices.LIST)}
    values = merge(read_yaml(recipe), {"downstream_expert": {"datarc": places}})
    steps, every = (values.get("runner", {}).get(name) for name in ("total_steps", "save_step"))
    if not isinstance(steps, int) or not isinstance(every, int) or every < 1 or steps < 1 or steps % every:
        raise ConfigError(
            f"{recipe}: runner.save_step is {every!r}, allowed: a divisor of runner.total_steps, {steps!r}"
        )
    write_text(out / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    return out / "config.yaml"


class _Experiment:
    """One upstream's training and evaluation.

    ``state.json`` says what the folder was made from and, once it is known, the accuracy. A folder that
    was made from something else is made anew.
    """

    def __init__(self, upstream: Upstream, out: Path, config: Path) -> None:
        self.upstream, self.out, self.config = upstream, out, config
        self.folder = out / upstream.name
        self.state = self.folder / "state.json"
        self.steps: int = read_yaml(config)["runner"]["total_steps"]
        told = [config.read_bytes(), (out / "corpus" / voices.LIST).read_bytes(), upstream.content]
        told += [argument.encode() for argument in upstream.arguments]
        self.key = hashlib.sha256(b"\0".join(told)).hexdigest()

    def accuracy(self) -> float:
        known = self._read()
        if known.get("key") != self.key:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._write(None)
        elif known.get("accuracy") is not None:
            return float(known["accuracy"])
        last = self._last()
        if last != self._checkpoint(self.steps):
            start = ["-d", "voxceleb1", "-c", str(self.config), "-p", str(self.folder)]
            start += self.upstream.arguments
            self._run("train", f"training, {self.steps} steps", ["-e", str(last)] if last else start)
        told = self._run("evaluate", "evaluation", ["-e", str(self._checkpoint(self.steps))])
        self._write(parse(told, self._log("evaluate")))
        return float(self._read()["accuracy"])

    def _checkpoint(self, step: int) -> Path:
        return self.folder / f"states-{step}.ckpt"

    def _last(self) -> Path | None:
        """The last whole checkpoint, rid of those that a killed process has half written."""
        for path in self.folder.glob("*.ckpt"):
            if not zipfile.is_zipfile(path):  # the index is at its end
                path.unlink()
        kept = self.folder.glob("states-*.ckpt")
        return max(kept, key=lambda path: int(path.stem.partition("-")[2]), default=None)

    def _log(self, mode: str) -> Path:
        return self.out / f"{self.upstream.name}.{mode}.log"

    def _run(self, mode: str, what: str, arguments: list[str]) -> str:
        print(f"  {self.upstream.title:<24}{what:<24}", end="", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", "s3prl.run_downstream", "-m", mode, *arguments, "--device", "cpu"]
        try:
            told = run(command, self._log(mode), self.out)
        except BaseException:
            print("failed", flush=True)
            raise
        print(f"{time.monotonic() - started:4.0f} s", flush=True)
        return told

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.state.read_text(encoding="utf8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, accuracy: float | None) -> None:
        write_text(self.state, json.dumps({"key": self.key, "accuracy": accuracy}) + "\n")


def run(command: list[str], log: Path, folder: Path) -> str:
    """Run a process in a folder, with what it says in a log, and return that.

    Raises:
        RunError: it ended with an error (the message has the last lines of the log), or the log is in
            use by a process whose parent was killed.
    """
    # The lists of files that are kept of the corpus belong beside it, not in the user's cache. Small
    # models gain nothing from a second thread, and lose much where others use the machine.
    own = {"S3PRL_DPHUBERT_PLUGIN": "1", "S3PRL_DPHUBERT_CACHE": str(folder / "cache")}
    own["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
    with log.open("ab") as file:
        try:  # the process inherits the lock, and keeps it if this one is killed
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{log}: a process of an earlier start still writes it; wait or end it") from error
        file.truncate(0)
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **own}, check=False
        ).returncode
    text = log.read_text(encoding="utf8", errors="replace")
    if code:
        raise RunError(f"s3prl ended with status {code}; the last lines of {log}:\n{tail(text)}")
    return text


def tail(text: str) -> str:
    """The last lines of a log, without the states that a progress bar has overwritten."""
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return "\n".join([line for line in lines if line][-SHOWN:])


def parse(text: str, log: Path) -> float:
    """The accuracy that an evaluation printed, as a fraction.

    Raises:
        RunError: there is none between 0 and 1.
    """
    # A progress bar may stand in front of it on the same line.
    numbers = re.findall(r"test acc: ([0-9.eE+-]+)", text)
    try:
        accuracy = float(numbers[-1])
    except (IndexError, ValueError):
        accuracy = float("nan")
    if not 0 <= accuracy <= 1:
        raise RunError(f"s3prl printed no accuracy; the last lines of {log}:\n{tail(text)}")
    return accuracy
