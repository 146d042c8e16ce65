"""Processes that die, meet, are interrupted or see the clock jump, and power that fails."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from s3prl_dphubert.cli import main
from tests.helpers import forked_processes
from tests.torture.commands import COMMANDS, Undisturbed
from tests.torture.disk import QUICK
from tests.torture.figures import FAILED, SAME
from tests.torture.kills import before_change
from tests.torture.power import Journal
from tests.torture.sandbox import Case, Child, Trial, fork, line_fault

PATIENCE = 180  # seconds
COMPRESS = next(command for command in COMMANDS if command.name == "compress")


def cases(seed: int, place: Path) -> Iterator[Case]:
    """Yield cases without end: the kinds take turns, and the commands where more than one can be meant."""
    for number in itertools.count():
        for kind in DISTURBANCES:
            yield Case("processes", kind, number, partial(trial, kind, number, seed, place))


def trial(kind: str, number: int, seed: int, place: Path) -> Trial:
    """Disturb a command, start it again, and compare."""
    folder = place / kind.replace(" ", "-") / str(number)
    folder.mkdir(parents=True)
    random = np.random.default_rng((seed, *kind.encode(), number))
    command = COMPRESS if kind in TRAINING else QUICK[number % len(QUICK)]
    undisturbed = Undisturbed.of(command, place)
    if kind == "rank killed":
        undisturbed = _of_two_ranks(undisturbed)
    began = time.monotonic()
    fault = DISTURBANCES[kind](undisturbed, folder, random)
    if not fault:
        shutil.rmtree(folder)
    seconds = round(time.monotonic() - began, 3)
    return Trial("processes", kind, number, FAILED if fault else SAME, fault, seconds)


def _end(undisturbed: Undisturbed, out: Path, folder: Path) -> str:
    """Run the command again to its end, and compare."""
    return undisturbed.command.finish(undisturbed.place, out, folder / "end.txt") or undisturbed.fault(out)


def _refusal(child: Child) -> str:
    """Return what is wrong with a command that has ended on its own."""
    if child.code == 0:
        return ""
    return line_fault(child.text) if child.code == 2 else f"exit code {child.code}: {child.text[-1500:]}"


def _moment(undisturbed: Undisturbed, random: np.random.Generator) -> float:
    return float(random.uniform(0, undisturbed.seconds))


def interrupted(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """SIGINT to the whole group, as by Ctrl-C: one line, code 130, and the same command goes on."""
    return _signalled(undisturbed, folder, random, signal.SIGINT, (0, 130))


def terminated(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """SIGTERM, as by a job's time limit."""
    return _signalled(undisturbed, folder, random, signal.SIGTERM, (0, -signal.SIGTERM, 143))


def _signalled(
    undisturbed: Undisturbed, folder: Path, random: np.random.Generator, number: int, codes: tuple[int, ...]
) -> str:
    out = folder / _name(undisturbed)
    child = undisturbed.command.start(undisturbed.place, out, folder / "stderr.txt")
    until = time.monotonic() + 0.05 + _moment(undisturbed, random)
    while time.monotonic() < until and not child.ended():
        time.sleep(0.005)
    child.signal(number)
    child.wait(PATIENCE)
    if child.code not in codes:
        return f"exit code {child.code}, allowed: {codes}: {child.text[-1500:]}"
    lines = [line for line in child.text.splitlines() if line.strip()]
    if child.code == 130 and not (lines and lines[-1].startswith("s3prl-dphubert: interrupted")):
        return f"last line: {lines[-1:]}"
    if "Traceback" in child.text:
        return f"traceback: {child.text[-1500:]}"
    return _end(undisturbed, out, folder)


def worker_killed(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """A process that reads audio is killed, as for want of memory."""
    values = yaml.safe_load((undisturbed.place / "run.yaml").read_text())
    for stage in ("stage1", "stage2"):
        values[stage]["num_workers"] = 1
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    words = ["compress", str(folder / "run.yaml"), "--out", str(folder / "out")]
    child = fork(lambda: main(words), folder / "stderr.txt")
    skip = int(random.integers(0, 3))  # of the workers that are started one after another
    seen: set[int] = set()
    while not child.ended():
        for worker in _children(child.pid) - seen:
            seen.add(worker)
            if len(seen) > skip:
                os.kill(worker, signal.SIGKILL)
                skip = 1 << 30
        time.sleep(0.002)
    if fault := _refusal(child):
        return fault
    again = fork(lambda: main(words), folder / "again.txt").wait(PATIENCE)
    if again.code:
        return f"afterwards, exit code {again.code}: {again.text[-1500:]}"
    return undisturbed.fault(folder / _name(undisturbed))


def _children(pid: int) -> set[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return set()
    return set(map(int, listed.split()))


def two_runs(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """Two runs in one folder: one works, the other is told."""
    out = folder / _name(undisturbed)
    children = []
    for number in range(2):
        children.append(undisturbed.command.start(undisturbed.place, out, folder / f"{number}.txt"))
        time.sleep(float(random.choice([0.0, 0.01, 0.3])))
    faults = [_refusal(child.wait(PATIENCE)) for child in children]
    if any(faults) or all(child.code for child in children):
        return " and ".join(filter(None, faults)) or "both were refused"
    return undisturbed.fault(out)


def clock_jumps(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """The clock of the day jumps by hours, back and forth, at every look."""
    jumps = random.normal(0, 86_400, 997).tolist()
    real, looks = time.time, iter(range(1 << 60))

    def prepare() -> None:
        time.time = lambda: max(0.0, real() + jumps[next(looks) % len(jumps)])

    child = undisturbed.command.start(
        undisturbed.place, folder / _name(undisturbed), folder / "stderr.txt", prepare
    )
    fault = _refusal(child.wait(PATIENCE))
    return fault or undisturbed.fault(folder / _name(undisturbed))


def power_cut(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """The power fails: what was not on the disk yet is lost, in part or whole."""
    disk, journal = folder / "disk", Journal(folder / "journal")
    disk.mkdir()
    out = disk / _name(undisturbed)
    at_change, share = random.random() < 0.5, float(random.random())
    kill = before_change(disk, int(share * undisturbed.changes))

    def prepare() -> None:
        journal.keep()
        if at_change:
            kill()

    child = undisturbed.command.start(undisturbed.place, out, folder / "stderr.txt", prepare)
    child.wait(PATIENCE if at_change else share * undisturbed.seconds)  # and is killed
    if early := journal.early():
        return f"renamed before it was on the disk: {', '.join(early)}"
    journal.lose(disk, random)
    return _end(undisturbed, out, folder)


def _of_two_ranks(undisturbed: Undisturbed) -> Undisturbed:
    """Return the undisturbed run of two processes that train together."""
    if undisturbed.place not in _OF_TWO:
        out = undisturbed.place / "two-ranks"
        words = ["compress", str(undisturbed.place / "run.yaml"), "--out", str(out)]
        began = time.monotonic()
        forked_processes.finish(forked_processes.run(undisturbed.place / "ranks", _main, words, world=2))
        seconds, digests = time.monotonic() - began, undisturbed.command.digests(out)
        _OF_TWO[undisturbed.place] = Undisturbed(undisturbed.command, undisturbed.place, seconds, digests)
    return _OF_TWO[undisturbed.place]


_OF_TWO: dict[Path, Undisturbed] = {}


def _name(undisturbed: Undisturbed) -> str:
    """Return the name of an output, of which the suffix may matter."""
    return undisturbed.out(0).name


def _main(words: list[str]) -> None:
    """Run a command in a rank."""
    code = main(words)
    sys.stderr.flush()
    os._exit(code)


def rank_killed(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """One of two processes that train together is killed: the other ends, and says so in a line."""
    words = ["compress", str(undisturbed.place / "run.yaml"), "--out", str(folder / "out")]
    ranks = forked_processes.run(folder / "first", _main, words, world=2)
    victim = int(random.integers(2))
    ranks[victim].process.join(_moment(undisturbed, random))
    ranks[victim].process.kill()
    other = ranks[1 - victim].wait(PATIENCE)
    if other.code not in (0, 2):
        return f"the other rank: exit code {other.code}: {other.text[-1500:]}"
    if other.code == 2 and (fault := line_fault(other.text)):
        return f"the other rank: {fault}"
    again = [rank.wait(PATIENCE) for rank in forked_processes.run(folder / "again", _main, words, world=2)]
    if any(rank.code for rank in again):
        return "afterwards: " + " and ".join(f"exit code {r.code}: {r.text[-800:]}" for r in again)
    return undisturbed.fault(folder / _name(undisturbed))


DISTURBANCES: dict[str, Callable[[Undisturbed, Path, np.random.Generator], str]] = {
    "SIGINT to the group": interrupted,
    "SIGTERM": terminated,
    "reader killed": worker_killed,
    "two runs in one folder": two_runs,
    "clock jumps": clock_jumps,
    "power cut": power_cut,
    "rank killed": rank_killed,
}
"""Kind -> what it does to a command; it returns what was wrong, or nothing."""

TRAINING = ("reader killed", "rank killed")
"""Kinds that only a training meets."""
