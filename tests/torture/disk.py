"""Disks that are full, limited or read only, and machines that lack what others have."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.helpers.golden import ROOT
from tests.torture.commands import COMMANDS, Undisturbed, leftovers
from tests.torture.sandbox import (
    FAILED,
    REFUSED,
    SAME,
    SKIPPED,
    Child,
    Trial,
    line_fault,
    may_mount,
    own_disk,
)

Prepare = Callable[[], None]
PATIENCE = 120  # seconds
NO_CASE = "folders that do not tell capital letters apart need a file system that is not here"


def file_size(random: np.random.Generator, largest: int, out: Path) -> Prepare:
    """No file may become larger than a random size: every write of the command meets it in some trial."""
    most = int(random.integers(0, largest))

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return prepare


def full_disk(random: np.random.Generator, largest: int, out: Path) -> Prepare:
    """The disk of the output is full after a random number of bytes."""
    size = int(random.integers(4096, 2 * largest + 8192))
    return lambda: own_disk(out.parent, size)


def read_only(random: np.random.Generator, largest: int, out: Path) -> Prepare:
    """The disk of the output cannot be written."""
    return lambda: own_disk(out.parent, None)


def few_files(random: np.random.Generator, largest: int, out: Path) -> Prepare:
    """No more than 64 files may be open."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def no_temporary_folder(random: np.random.Generator, largest: int, out: Path) -> Prepare:
    """The folder for temporary files is missing."""

    def prepare() -> None:
        import tempfile

        os.environ["TMPDIR"] = str(out.parent / "missing")
        tempfile.tempdir = None

    return prepare


def no_home(random: np.random.Generator, largest: int, out: Path) -> Prepare:
    """The home folder is missing, and so is its name."""

    def prepare() -> None:
        for name in ("HOME", "XDG_CACHE_HOME", "S3PRL_DPHUBERT_CACHE"):
            os.environ.pop(name, None)

    return prepare


CONDITIONS: dict[str, Callable[[np.random.Generator, int, Path], Prepare]] = {
    "limit of file size": file_size,
    "full disk": full_disk,
    "read-only disk": read_only,
    "64 open files": few_files,
    "no temporary folder": no_temporary_folder,
    "no home": no_home,
}
MOUNTED = ("full disk", "read-only disk")
NAMES = {"name that is not UTF-8": b"out-\xff\xfe", "name in other letters": "aus–gäbe 出力".encode()}
LOCALES = ("C", "POSIX")


def trials(seed: int, place: Path) -> Iterator[Trial]:
    """Yield trials without end: commands and conditions take turns."""
    commands = [command for command in COMMANDS if command.name != "free-superb"]
    known = {command.name: Undisturbed.of(command, place) for command in commands}
    mounts, number = may_mount(place), 0
    yield Trial("disk", "case-insensitive folder", 0, SKIPPED, NO_CASE, disturbances=0)
    while True:
        for kind, condition in CONDITIONS.items():
            for undisturbed in known.values():
                name = f"{kind}: {undisturbed.command.name}"
                if kind in MOUNTED and not mounts:
                    if not number:
                        yield Trial("disk", name, 0, SKIPPED, "no mounts of one's own here", disturbances=0)
                    continue
                yield trial(name, condition, undisturbed, number, seed)
        for name, letters in NAMES.items():
            undisturbed = list(known.values())[number % len(known)]
            yield named(f"{name}: {undisturbed.command.name}", undisturbed, letters, number)
        yield in_locale(known["convert"], LOCALES[number % len(LOCALES)], number)
        number += 1


def trial(
    name: str,
    condition: Callable[[np.random.Generator, int, Path], Prepare],
    undisturbed: Undisturbed,
    number: int,
    seed: int,
) -> Trial:
    """Run a command under a condition, which it may survive or refuse in one line, and then without it."""
    command = undisturbed.command
    folder = undisturbed.place / name.partition(":")[0].replace(" ", "-") / str(number)
    disk = folder / "disk"  # mounts hide what lies below
    disk.mkdir(parents=True)
    out = disk / undisturbed.out(number).name
    random = np.random.default_rng((seed, *name.encode(), number))
    largest = max(10_000, *(_size(undisturbed.place / part) for part in ("model", "teacher")))
    child = command.start(undisturbed.place, out, folder / "stderr.txt", condition(random, largest, out))
    fault, outcome = _judged(child.wait(PATIENCE), undisturbed, out, name.startswith(MOUNTED))
    if not fault:
        fault = command.finish(undisturbed.place, out, folder / "again.txt") or undisturbed.fault(out)
        fault = f"afterwards, {fault}" if fault else ""
    if not fault:
        shutil.rmtree(folder)
    return Trial("disk", name, number, FAILED if fault else outcome, fault, round(child.seconds, 3))


def _judged(child: Child, undisturbed: Undisturbed, out: Path, is_mounted: bool) -> tuple[str, str]:
    """Return what is wrong, and the outcome; what lay on a disk of the child's own is gone with it."""
    if child.code == 0:
        return ("" if is_mounted else undisturbed.fault(out)), SAME
    if child.code == 2:
        return line_fault(child.text), REFUSED
    return f"exit code {child.code}: {child.text[-1500:]}", FAILED


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def named(kind: str, undisturbed: Undisturbed, letters: bytes, number: int) -> Trial:
    """Write to a folder of a difficult name."""
    folder = undisturbed.place / kind.partition(":")[0].replace(" ", "-") / str(number) / os.fsdecode(letters)
    folder.mkdir(parents=True)
    out = folder / undisturbed.out(number).name
    child = undisturbed.command.start(undisturbed.place, out, folder / "stderr.txt").wait(PATIENCE)
    fault, outcome = _judged(child, undisturbed, out, is_mounted=False)
    return Trial("disk", kind, number, FAILED if fault else outcome, fault, round(child.seconds, 3))


def in_locale(undisturbed: Undisturbed, locale: str, number: int) -> Trial:
    """Convert, in a new interpreter, with a locale that knows ASCII only."""
    folder = undisturbed.place / f"locale-{number}-gäbe"
    folder.mkdir()
    out = folder / "out"
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "s3prl_dphubert", "convert", str(undisturbed.place / "model"), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT, errors="replace")
    fault = ""
    if done.returncode == 2:
        fault = line_fault(done.stderr)
    elif done.returncode or leftovers(out):
        fault = f"exit code {done.returncode}: {done.stderr[-1500:]}"
    outcome = FAILED if fault else REFUSED if done.returncode else SAME
    return Trial("disk", f"locale {locale}: convert", number, outcome, fault)
