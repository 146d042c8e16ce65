"""Disks that are full, limited or read only, and machines that lack what others have."""

from __future__ import annotations

import itertools
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.file_changes import watch_changes
from tests.helpers.golden import ROOT
from tests.torture.commands import COMMANDS, Command, Undisturbed, leftovers
from tests.torture.figures import FAILED, REFUSED, SAME, SKIPPED
from tests.torture.kills import before_change
from tests.torture.restrictions import exceed_quota, may_mount, own_disk, without_privileges
from tests.torture.sandbox import Case, Child, Trial, line_fault

Prepare = Callable[[], None]
Condition = Callable[[np.random.Generator, Undisturbed, Path], Prepare]
PATIENCE = 120  # seconds
QUICK = tuple(command for command in COMMANDS if command.every == 1 and command.name != "free-superb")


def file_size(random: np.random.Generator, undisturbed: Undisturbed, out: Path) -> Prepare:
    """No file may become larger than a random size: every write of the command meets it in some trial."""
    most = int(random.integers(0, _largest(undisturbed)))

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return prepare


def full_disk(random: np.random.Generator, undisturbed: Undisturbed, out: Path) -> Prepare:
    """The disk of the output is full after a random number of bytes."""
    size = int(random.integers(4096, 2 * _largest(undisturbed) + 8192))
    return lambda: own_disk(out.parent, size)


def read_only(random: np.random.Generator, undisturbed: Undisturbed, out: Path) -> Prepare:
    """The disk of the output cannot be written."""
    return lambda: own_disk(out.parent, None)


def read_only_folder(random: np.random.Generator, undisturbed: Undisturbed, out: Path) -> Prepare:
    """The folder of the output belongs to somebody else, and this process is not root."""

    def prepare() -> None:
        out.parent.chmod(0o555)
        without_privileges()

    return prepare


def quota(random: np.random.Generator, undisturbed: Undisturbed, out: Path) -> Prepare:
    """The user's quota is used up before a random one of the changes of files that the command makes."""
    return before_change(out.parent, int(random.integers(undisturbed.changes)), exceed_quota)


def few_files(random: np.random.Generator, undisturbed: Undisturbed, out: Path) -> Prepare:
    """No more than 64 files may be open."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def no_temporary_folder(random: np.random.Generator, undisturbed: Undisturbed, out: Path) -> Prepare:
    """The folder for temporary files is missing, or cannot be written."""
    place = out.parent.parent / "temporary"
    if random.random() < 0.5:
        place.mkdir(mode=0o555)

    def prepare() -> None:
        import tempfile

        os.environ["TMPDIR"] = str(place)
        tempfile.tempdir = None
        without_privileges()

    return prepare


def no_home(random: np.random.Generator, undisturbed: Undisturbed, out: Path) -> Prepare:
    """There is no home folder: the variable is missing, and perhaps the user too, as in many containers."""
    is_known = random.random() < 0.5

    def prepare() -> None:
        for name in ("HOME", "XDG_CACHE_HOME", "S3PRL_DPHUBERT_CACHE"):
            os.environ.pop(name, None)
        if not is_known:
            pwd.getpwuid = _nobody

    return prepare


def _nobody(number: int) -> Any:
    raise KeyError(f"getpwuid(): uid not found: {number}")


CONDITIONS: dict[str, Condition] = {
    "limit of file size": file_size,
    "full disk": full_disk,
    "read-only disk": read_only,
    "read-only folder": read_only_folder,
    "quota": quota,
    "64 open files": few_files,
    "no temporary folder": no_temporary_folder,
    "no home": no_home,
}
MOUNTED = ("full disk", "read-only disk")
NAMES = {"name that is not UTF-8": b"out-\xff\xfe", "name in other letters": "aus–gäbe 出力".encode()}
LOCALES = ("C", "POSIX")


def cases(seed: int, place: Path) -> Iterator[Case]:
    """Yield cases without end: commands and conditions take turns."""
    mounts = may_mount(place)
    for number in itertools.count():
        for kind in CONDITIONS:
            for command in QUICK:
                name = f"{kind}: {command.name}"
                attempt = partial(trial, name, CONDITIONS[kind], command, number, seed, place)
                if kind in MOUNTED and not mounts:
                    attempt = partial(_skipped, name, number)
                yield Case("disk", name, number, attempt)
        command = QUICK[number % len(QUICK)]
        for kind, letters in NAMES.items():
            name = f"{kind}: {command.name}"
            yield Case("disk", name, number, partial(named, name, command, letters, number, place))
        name = f"names that differ in capital letters: {command.name}"
        yield Case("disk", name, number, partial(capital_letters, name, command, number, place))
        locale = LOCALES[number % len(LOCALES)]
        name = f"locale {locale}: convert"
        yield Case("disk", name, number, partial(in_locale, name, locale, number, place))


def _skipped(name: str, number: int) -> Trial:
    return Trial("disk", name, number, SKIPPED, "no mounts of one's own here", disturbances=0)


def trial(name: str, condition: Condition, command: Command, number: int, seed: int, place: Path) -> Trial:
    """Run a command under a condition, which it may survive or refuse in one line, and then without it."""
    undisturbed = Undisturbed.of(command, place)
    folder = undisturbed.place / name.partition(":")[0].replace(" ", "-") / str(number)
    disk = folder / "disk"  # mounts hide what lies below
    disk.mkdir(parents=True)
    out = disk / undisturbed.out(number).name
    random = np.random.default_rng((seed, *name.encode(), number))
    prepare = condition(random, undisturbed, out)
    child = command.start(undisturbed.place, out, folder / "stderr.txt", prepare).wait(PATIENCE)
    disk.chmod(0o755)
    fault, outcome = _judged(child, undisturbed, out, name.startswith(MOUNTED))
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


def _largest(undisturbed: Undisturbed) -> int:
    """Return bytes that no file of the output exceeds by much."""
    models = (undisturbed.place / name for name in ("model", "teacher"))
    files = (path.stat().st_size for model in models for path in model.rglob("*"))
    return max(10_000, sum(files))


def named(kind: str, command: Command, letters: bytes, number: int, place: Path) -> Trial:
    """Write to a folder of a difficult name."""
    undisturbed = Undisturbed.of(command, place)
    folder = undisturbed.place / kind.partition(":")[0].replace(" ", "-") / str(number) / os.fsdecode(letters)
    folder.mkdir(parents=True)
    out = folder / undisturbed.out(number).name
    child = command.start(undisturbed.place, out, folder / "stderr.txt").wait(PATIENCE)
    fault, outcome = _judged(child, undisturbed, out, is_mounted=False)
    return Trial("disk", kind, number, FAILED if fault else outcome, fault, round(child.seconds, 3))


def capital_letters(kind: str, command: Command, number: int, place: Path) -> Trial:
    """See that no two names that a command writes differ in capital letters only.

    A file system that does not tell them apart would take them for one file.
    """
    undisturbed = Undisturbed.of(command, place)
    folder = undisturbed.place / "capital-letters" / str(number)
    folder.mkdir(parents=True)
    out, record = folder / undisturbed.out(number).name, folder.parent / f"{number}.txt"

    def prepare() -> None:
        file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        watch_changes(folder, lambda change: os.write(file, f"{change.partition(' ')[2]}\n".encode()))

    child = command.start(undisturbed.place, out, folder / "stderr.txt", prepare).wait(PATIENCE)
    fault, outcome = _judged(child, undisturbed, out, is_mounted=False)
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    names = written | set(record.read_text().splitlines())
    alike = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    fault = fault or (f"differ in capital letters only: {', '.join(alike)}" if alike else "")
    return Trial("disk", kind, number, FAILED if fault else outcome, fault, round(child.seconds, 3))


def in_locale(kind: str, locale: str, number: int, place: Path) -> Trial:
    """Convert, in a new interpreter, with a locale that knows ASCII only."""
    undisturbed = Undisturbed.of(next(command for command in QUICK if command.name == "convert"), place)
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
    return Trial("disk", kind, number, outcome, fault)
