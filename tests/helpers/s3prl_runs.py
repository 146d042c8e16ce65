"""Starts s3prl in processes of its own, as a user does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.helpers.s3prl_tasks import GENERATIVE, TASKS, Task

LIMIT = 600  # seconds for a process; the box may be busy
SEVERAL = """
import builtins, json, multiprocessing, sys
multiprocessing.set_start_method(sys.argv[2])
from s3prl import run_downstream
kept = builtins.isinstance
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["run_downstream", *arguments]
    run_downstream.main()
    builtins.isinstance = kept  # s3prl wraps it at every start, each time twice as deep
"""


@dataclass(frozen=True)
class Done:
    """Result of a process."""

    code: int
    out: str
    err: str

    def ok(self) -> Done:
        """The same, if it ended well."""
        assert self.code == 0, self.out[-2000:] + self.err[-4000:]
        return self


def python(*arguments: str, cwd: Path, timeout: int = LIMIT, **environment: str) -> Done:
    """Run this interpreter in a folder, with caches and home in there."""
    own = {"HOME": str(cwd), "S3PRL_DPHUBERT_CACHE": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, **own, **environment},
        check=False,
    )
    return Done(ended.returncode, ended.stdout, ended.stderr)


class Experiment:
    """One task on its miniature corpus, and the arguments of ``run_downstream`` for it.

    Args:
        name: of the task.
        place: a folder of its own.
        upstream: arguments that choose the upstream.
    """

    def __init__(self, name: str, place: Path, upstream: list[str]) -> None:
        self.task: Task = (TASKS | GENERATIVE)[name](place / "corpus")
        self.place, self.folder = place, place / "experiment"
        config = place / "config.yaml"
        config.write_text(yaml.safe_dump(self.task.config))
        device = ["--device", "cpu"]
        start = ["-d", self.task.downstream, "-c", str(config), "-p", str(self.folder), *upstream, *device]
        last = ["-e", str(self.folder / "states-2.ckpt"), *device]
        self.train = ["-m", "train", *start]
        self.layer = ["-m", "evaluate", "-t", self.task.split, *start]
        self.evaluate = ["-m", "evaluate", "-t", self.task.split, *last]
        self.resume = ["-m", "train", *last, "-o", "config.runner.total_steps=4"]

    def one(self, arguments: list[str], **options: Any) -> Done:
        """A process of its own for one start of s3prl."""
        return python("-m", "s3prl.run_downstream", *arguments, cwd=self.place, **options)

    def several(self, *starts: list[str], method: str = "fork") -> Done:
        """One process for several starts: each costs 7 to 11 s of imports, and shares nothing else.

        Args:
            starts: arguments of each.
            method: how its workers are started.
        """
        return python("-c", SEVERAL, json.dumps(starts), method, cwd=self.place)

    def checkpoint(self, step: int) -> dict[str, Any]:
        """The checkpoint saved after so many steps."""
        return read_states(self.folder / f"states-{step}.ckpt")

    def scores(self, out: str) -> list[float]:
        """The numbers that the evaluation printed, in the order of the task's scores."""
        matches = [re.findall(rf"^{re.escape(score)}(\S+)", out, re.MULTILINE) for score in self.task.scores]
        return [float(numbers[-1]) for numbers in matches if numbers]


def read_states(path: Path) -> dict[str, Any]:
    """Read a checkpoint of s3prl's runner."""
    with torch.serialization.safe_globals([Namespace]):
        return torch.load(path, weights_only=True)


def assert_resumed(first: dict[str, Any], second: dict[str, Any], layers: int) -> None:
    """Check the checkpoint after two steps, and the one after two further steps from there.

    Args:
        first: after two steps.
        second: after four.
        layers: hidden states that the featurizer weighs.
    """
    for checkpoint, steps in ((first, 2), (second, 4)):
        assert checkpoint["Step"] == steps
        assert {int(state["step"]) for state in checkpoint["Optimizer"]["state"].values()} == {steps}
        assert checkpoint["Args"].upstream == "dphubert_local"
        assert checkpoint["Featurizer"]["weights"].shape == (layers,)
    assert first["Downstream"].keys() == second["Downstream"].keys()
    changed = [
        not torch.equal(first["Downstream"][name], second["Downstream"][name])
        for name in first["Downstream"]
        if name != "best_score"
    ]
    assert any(changed)
