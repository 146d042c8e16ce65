"""SIGKILL at random moments: whoever starts the command again gets what an undisturbed one brings."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.torture.commands import Command, Undisturbed
from tests.torture.sandbox import FAILED, SAME, Trial

MOST_KILLS = 3  # of one command, before it is left alone


def trials(seed: int, place: Path, commands: Sequence[Command]) -> Iterator[Trial]:
    """Yield trials without end: the commands take turns, each killed one to three times and then finished."""
    known: list[Undisturbed] = []
    for command in commands:
        try:
            known.append(Undisturbed.of(command, place))
        except RuntimeError as error:
            yield Trial("kills", command.name, 0, FAILED, str(error), disturbances=0)
        else:
            yield trial(known[-1], 0, seed)
    for number in itertools.count(1):
        for undisturbed in known:
            yield trial(undisturbed, number, seed)


def trial(undisturbed: Undisturbed, number: int, seed: int) -> Trial:
    """Kill a command at random moments of the time that it takes, and then let it finish."""
    command, out = undisturbed.command, undisturbed.out(number)
    out.parent.mkdir(parents=True)
    random = np.random.default_rng((seed, *command.name.encode(), number))
    kills, spent = 0, 0.0
    for start in range(int(random.integers(1, MOST_KILLS + 1))):
        if command.fresh and out.exists():
            break
        child = command.start(undisturbed.place, out, out.parent / f"killed{start}.txt")
        child.wait(float(random.uniform(0, undisturbed.seconds)))
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
