"""Children that do one thing under limits, and what became of it."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import DPHubertError
from s3prl_dphubert.model.state_dict import build_model
from tests.helpers.models import tiny
from tests.torture.figures import FAILED, REFUSED, SOUND

PRELOADED = (
    "torch._dynamo",
    "torch.fx.experimental.symbolic_shapes",
    "torch.utils.tensorboard",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "s3prl_dphubert.checkpoints.model_card",
    "s3prl_dphubert.compression.pipeline",
    "s3prl_dphubert.compression.run_plots",
    "s3prl_dphubert.export.exporter",
    "s3prl_dphubert.superb.submission.archive",
    "s3prl_dphubert.upstream.hub_repo",
)
_LINE = "s3prl-dphubert: "
EXECUTED = "EXECUTED"
"""Word on stderr that means that a file has had something executed, or called somebody."""


@dataclass(frozen=True)
class Trial:
    """One trial: its part, what was tried, its number and how it ended.

    Args:
        part: kills, damage, disk, processes or submission.
        kind: of the input, command or condition.
        number: of the case, which together with the seed is all that it depends on.
        outcome: sound, refused or same (as undisturbed), failed, or skipped.
        detail: what went wrong, or why it was skipped.
        seconds: it took.
        disturbances: kills or faults in it.
    """

    part: str
    kind: str
    number: int
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    disturbances: int = 1

    def row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """Something to try, which depends on the seed and these only.

    Args:
        part: as in a trial.
        kind: as in a trial.
        number: as in a trial.
        attempt: tries it.
    """

    part: str
    kind: str
    number: int
    attempt: Callable[[], Trial]

    def run(self) -> Trial:
        """Try it; an error of the torture itself, or of a command that it starts from, is a failure too."""
        try:
            return self.attempt()
        except Exception:
            text = traceback.format_exc()
            return Trial(self.part, self.kind, self.number, FAILED, text, disturbances=0)


@dataclass
class Child:
    """A process that was forked from this one, in a session of its own."""

    pid: int
    output: Path
    began: float = field(default_factory=time.monotonic)
    code: int | None = None
    seconds: float = 0.0

    def wait(self, seconds: float) -> Child:
        """Wait for its end; after so many seconds it is killed, and its code is ``None``."""
        until = time.monotonic() + seconds
        pause = 0.001
        while time.monotonic() < until:
            if self.ended():
                return self
            time.sleep(pause)
            pause = min(0.05, 1.5 * pause)
        self.kill()
        self.code = None
        return self

    def ended(self) -> bool:
        """Return whether it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code, self.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self.began
        return self.code is not None

    def signal(self, number: int) -> None:
        """Send a signal to its whole group."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill its group, and wait."""
        self.signal(signal.SIGKILL)
        if self.code is None:
            _, status = os.waitpid(self.pid, 0)
            self.code, self.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self.began

    @property
    def text(self) -> str:
        """Text that it printed to stderr."""
        return self.output.read_text(encoding="utf8", errors="replace")


def fork(function: Callable[[], Any], output: Path, *, prepare: Callable[[], None] | None = None) -> Child:
    """Run a function in a child.

    Its exit code is the number that the function returns, otherwise 0, and 1 with a traceback if it raises.

    Args:
        function: to run.
        output: file for stderr; stdout goes nowhere.
        prepare: called before, such as to set limits.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, output)
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null, file = os.open(os.devnull, os.O_RDWR), os.open(output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for number, target in ((0, null), (1, null), (2, file)):
            os.dup2(target, number)
        sys.stdin, sys.stdout = os.fdopen(0, "r", closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")
        if prepare is not None:
            prepare()
        answer = function()
        code = answer if isinstance(answer, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)


def warm_up() -> None:
    """Import here what each child would import anew, and have torch set up what it needs once."""
    for name in PRELOADED:
        importlib.import_module(name)
    torch.set_num_threads(1)  # a pool of threads would be lost in children
    torch.optim.AdamW(build_model(tiny("hubert").config, tiny("hubert").state_dict(), "here").parameters())


def command(*words: Any) -> Callable[[], int]:
    """The command line, to be run in a child."""
    return lambda: main([str(word) for word in words])


def as_command(use: Callable[[], Any]) -> Callable[[], int]:
    """A function or command, that ends as a command does: an error of the package is a line and code 2."""

    def run() -> int:
        try:
            answer = use()
        except DPHubertError as error:
            print(f"{_LINE}{error}", file=sys.stderr)
            return 2
        return answer if isinstance(answer, int) else 0

    return run


def judged(code: int | None, text: str) -> tuple[str, str]:
    """Return how a command on a damaged input ended, and what is wrong with that.

    Args:
        code: its exit code; ``None`` if it had to be killed.
        text: that it printed to stderr.
    """
    if EXECUTED in text:
        return FAILED, f"something was executed: {text[-300:]}"
    if code is None:
        return FAILED, f"took more than the time allowed: {text[-300:]}"
    if code not in (0, 2):
        return FAILED, f"exit code {code}: {text[-1500:]}"
    if code == 0:
        return SOUND, ""
    fault = line_fault(text)
    return (FAILED, fault) if fault else (REFUSED, text.strip()[-200:])


def line_fault(text: str) -> str:
    """Return what keeps a refusal from being one printable line; progress bars and warnings may precede."""
    lines = [line for line in text.split("\n") if line.strip()]
    own = [line for line in lines if line.startswith(_LINE)]
    if len(own) != 1 or lines[-1] != own[0]:
        return f"not one line at the end: {text[-1500:]}"
    if not own[0].isprintable():
        return f"control characters: {own[0]!r}"
    if re.search(r"Traceback|needs more memory than there is|out of memory|MemoryError", text):
        return f"asks for more memory than allowed, or has a traceback: {text[-1500:]}"
    return ""
