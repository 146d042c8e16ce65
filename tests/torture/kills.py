"""SIGKILL at random moments: whoever starts the command again gets what an undisturbed one brings."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tests.helpers.file_changes import watch_changes
from tests.torture.commands import COMMANDS, Command, Undisturbed
from tests.torture.figures import FAILED, SAME
from tests.torture.sandbox import Case, Trial

MOST_KILLS = 3  # of one command, before it is left alone
PATIENCE = 300  # seconds for a command that waits for its change


def cases(seed: int, place: Path, commands: Sequence[Command] = COMMANDS) -> Iterator[Case]:
    """Yield cases without end: the commands take turns, those under s3prl in few rounds."""
    for number in itertools.count():
        for command in commands:
            if not number % command.every:
                attempt = partial(trial, command, number, seed, place)
                yield Case("kills", command.name, number, attempt)


def trial(command: Command, number: int, seed: int, place: Path) -> Trial:
    """Kill a command one to three times, then let it finish.

    It is killed at a random share of the time that it takes, or before a random one of its changes of files.
    """
    undisturbed = Undisturbed.of(command, place)
    out = undisturbed.out(number)
    out.parent.mkdir(parents=True)
    random = np.random.default_rng((seed, *command.name.encode(), number))
    kills, spent = 0, 0.0
    for start in range(int(random.integers(1, MOST_KILLS + 1))):
        if command.fresh and out.exists():
            break
        at_change, share = random.random() < 0.5, float(random.random())
        prepare = before_change(out.parent, int(share * undisturbed.changes)) if at_change else None
        child = command.start(undisturbed.place, out, out.parent / f"killed{start}.txt", prepare)
        child.wait(PATIENCE if at_change else share * undisturbed.seconds)
        spent += child.seconds
        kills += child.code in (None, -signal.SIGKILL)
        if child.code not in (None, 0, -signal.SIGKILL):
            return Trial(
                "kills", command.name, number, FAILED, f"exit code {child.code}: {child.text[-1500:]}"
            )
    fault = command.finish(undisturbed.place, out, out.parent / "finished.txt") or undisturbed.fault(out)
    if not fault:
        shutil.rmtree(out.parent)
    return Trial("kills", command.name, number, FAILED if fault else SAME, fault, round(spent, 3), kills)


def before_change(
    folder: Path, number: int, act: Callable[[], None] = lambda: os.killpg(0, signal.SIGKILL)
) -> Callable[[], None]:
    """Return what makes a child kill its group, or do something else, before one of its changes of files."""

    def prepare() -> None:
        left = [number]

        def count(change: str) -> None:
            if left[0] == 0:
                act()
            left[0] -= 1

        watch_changes(folder, count)

    return prepare
