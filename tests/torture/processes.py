"""Processes that die, meet, are interrupted or see the clock jump, and power that fails."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from s3prl_dphubert.cli import main
from tests.helpers import forked_processes
from tests.torture.commands import COMMANDS, Undisturbed
from tests.torture.sandbox import FAILED, SAME, Child, Trial, fork, line_fault

PATIENCE = 180  # seconds
COMPRESS = next(command for command in COMMANDS if command.name == "compress")


def trials(seed: int, place: Path) -> Iterator[Trial]:
    """Yield trials without end: the kinds take turns."""
    undisturbed, number = Undisturbed.of(COMPRESS, place), 0
    two = _of_two_ranks(undisturbed)
    while True:
        for kind, disturb in DISTURBANCES.items():
            folder = place / kind.replace(" ", "-") / str(number)
            folder.mkdir(parents=True)
            random = np.random.default_rng((seed, *kind.encode(), number))
            began = time.monotonic()
            fault = disturb(two if kind == "rank killed" else undisturbed, folder, random)
            if not fault:
                shutil.rmtree(folder)
            outcome = FAILED if fault else SAME
            yield Trial("processes", kind, number, outcome, fault, round(time.monotonic() - began, 3))
        number += 1


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
    out = folder / "out"
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
    return undisturbed.fault(folder / "out")


def _children(pid: int) -> set[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return set()
    return set(map(int, listed.split()))


def two_runs(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """Two runs in one folder: one works, the other is told."""
    out = folder / "out"
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

    child = undisturbed.command.start(undisturbed.place, folder / "out", folder / "stderr.txt", prepare)
    fault = _refusal(child.wait(PATIENCE))
    return fault or undisturbed.fault(folder / "out")


def power_cut(undisturbed: Undisturbed, folder: Path, random: np.random.Generator) -> str:
    """The power fails: a file whose name reached the disk before its content is empty then."""
    record = folder / "unsynced.txt"

    def prepare() -> None:
        synced: set[tuple[int, int]] = set()
        fsync, replace = os.fsync, os.replace

        def key(status: os.stat_result) -> tuple[int, int]:
            return status.st_dev, status.st_ino

        def watched_fsync(number: Any) -> None:
            fsync(number)
            synced.add(key(os.fstat(number if isinstance(number, int) else number.fileno())))

        def watched_replace(source: Any, target: Any, **more: Any) -> None:
            inside = (
                [Path(source)]
                if Path(source).is_file()
                else [p for p in Path(source).rglob("*") if p.is_file()]
            )
            for path in inside:
                if key(path.stat()) not in synced:
                    with record.open("a") as file:
                        file.write(f"{path} -> {target}\n")
            replace(source, target, **more)

        os.fsync, os.replace = watched_fsync, watched_replace

    out = folder / "out"
    child = undisturbed.command.start(undisturbed.place, out, folder / "stderr.txt", prepare)
    child.wait(_moment(undisturbed, random))  # and is killed
    unsynced = sorted(path for path in out.rglob("log.jsonl"))
    for path in unsynced:  # what is only appended to may lose its end
        data = path.read_bytes()
        path.write_bytes(data[: int(random.integers(0, len(data) + 1))])
    if record.exists():
        return f"renamed before it was on the disk: {record.read_text()}"
    return _end(undisturbed, out, folder)


def _of_two_ranks(undisturbed: Undisturbed) -> Undisturbed:
    """What two processes that train together make."""
    out = undisturbed.place / "two-ranks"
    words = ["compress", str(undisturbed.place / "run.yaml"), "--out", str(out)]
    began = time.monotonic()
    forked_processes.finish(forked_processes.run(undisturbed.place / "ranks", _main, words, world=2))
    seconds = time.monotonic() - began
    return Undisturbed(undisturbed.command, undisturbed.place, seconds, undisturbed.command.digests(out))


def _main(words: list[str]) -> None:
    """Run a command in a rank."""
    os._exit(main(words))


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
    return undisturbed.fault(folder / "out")


DISTURBANCES: dict[str, Callable[[Undisturbed, Path, np.random.Generator], str]] = {
    "SIGINT to the group": interrupted,
    "SIGTERM": terminated,
    "reader killed": worker_killed,
    "two runs in one folder": two_runs,
    "clock jumps": clock_jumps,
    "power cut": power_cut,
    "rank killed": rank_killed,
}
