"""Commands that write something, the files that they have to leave, and their undisturbed results."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from s3prl_dphubert.cli import main
from s3prl_dphubert.free_superb.build import build
from tests.helpers import compression_runs, debian_packages, pretraining_runs, superb_runs
from tests.helpers.file_changes import watch_changes
from tests.torture.sandbox import Child, as_command, fork

PATIENCE = 300  # seconds for one undisturbed command on a busy machine
RARELY = 3  # commands that run s3prl take long


@dataclass(frozen=True)
class Command:
    """A command of which a second try must bring what an undisturbed one brings.

    Args:
        name: of the command.
        run: folder of its inputs and its output -> exit code; called in a child.
        make: prepares the inputs in a folder.
        results: patterns of the files below the output that are compared, byte by byte.
        fresh: the output must not exist before; what a first try left whole is then right already.
        every: rounds of which one has it.
    """

    name: str
    run: Callable[[Path, Path], int]
    make: Callable[[Path], Any]
    results: Sequence[str]
    fresh: bool = True
    every: int = 1

    def start(self, place: Path, out: Path, log: Path, prepare: Callable[[], None] | None = None) -> Child:
        """Start it in a child."""

        def run() -> int:
            os.environ |= {"HOME": str(place), "S3PRL_DPHUBERT_CACHE": str(place / "cache")}
            return self.run(place, out)

        return fork(run, log, prepare=prepare)

    def finish(self, place: Path, out: Path, log: Path, prepare: Callable[[], None] | None = None) -> str:
        """Run it to its end unless its result is there; return what is wrong, or nothing."""
        if self.fresh and out.exists():
            return ""
        child = self.start(place, out, log, prepare).wait(PATIENCE)
        return "" if child.code == 0 else f"exit code {child.code} of the last start: {child.text[-1500:]}"

    def digests(self, out: Path) -> dict[str, str]:
        """Name -> SHA-256 of the files that are compared, and of the names of leftovers."""
        if out.is_file():
            return {"": hashlib.sha256(out.read_bytes()).hexdigest()}
        paths = {path for pattern in self.results for path in out.glob(pattern) if path.is_file()}
        digests = {
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(paths)
        }
        return digests | {leftover: "" for leftover in leftovers(out)}


def leftovers(out: Path) -> list[str]:
    """Temporary files below or beside an output."""
    paths = [*out.rglob("*.part"), *out.parent.glob(f".{out.name}.*.part")]
    return sorted(path.name for path in paths)


@dataclass
class Undisturbed:
    """Undisturbed run of a command.

    Args:
        command: that ran.
        place: of its inputs.
        seconds: it took.
        digests: of its results.
        changes: of files that its first process made.
    """

    command: Command
    place: Path
    seconds: float
    digests: dict[str, str]
    changes: int = 0

    @classmethod
    def of(cls, command: Command, folder: Path) -> Undisturbed:
        """Make the inputs and run it twice, to count its changes and to time it; all parts share it.

        Raises:
            RuntimeError: it fails, or two runs leave different files.
        """
        place = folder / "undisturbed" / command.name.replace(" ", "-")
        if place in _MADE:
            return _MADE[place]
        place.mkdir(parents=True)
        command.make(place)
        digests, seconds = [], 0.0
        for number in (1, 2):
            out, began = place / f"whole{number}" / f"out{_suffix(command)}", time.monotonic()
            out.parent.mkdir()
            count = partial(_count_changes, out.parent, place / "changes") if number == 1 else None
            if fault := command.finish(place, out, place / "log.txt", count):
                raise RuntimeError(f"{command.name}: {fault}")
            seconds = time.monotonic() - began
            digests.append(command.digests(out))
            _remove(out)
        if digests[0] != digests[1] or not digests[0]:
            differing = {name for name, _ in set(digests[0].items()) ^ set(digests[1].items())}
            raise RuntimeError(f"{command.name}: undisturbed runs differ in {sorted(differing)}")
        changes = (place / "changes").stat().st_size
        _MADE[place] = cls(command, place, seconds, digests[0], changes)
        return _MADE[place]

    def out(self, number: int) -> Path:
        """Return a place for the output of a trial."""
        return self.place / "trials" / str(number) / f"out{_suffix(self.command)}"

    def fault(self, out: Path) -> str:
        """Return how the files differ from the undisturbed ones, or nothing."""
        digests = self.command.digests(out)
        if digests == self.digests:
            return ""
        names = {name for name, _ in set(digests.items()) ^ set(self.digests.items())}
        return f"other files than undisturbed: {', '.join(sorted(names))}"


_MADE: dict[Path, Undisturbed] = {}


def _count_changes(folder: Path, counter: Path) -> None:
    """Add a byte to a file for each change."""
    number = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    watch_changes(folder, lambda change: os.write(number, b"."))


def _suffix(command: Command) -> str:
    return ".onnx" if command.name == "export" else ""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)


def _model(place: Path) -> None:
    superb_runs.upstream(place / "model")


def _short(place: Path) -> None:
    compression_runs.make_place(place)
    values = compression_runs.settings(place)
    for stage in ("stage1", "stage2"):
        values[stage] |= {"updates": 6, "validate_every": 3}
    (place / "run.yaml").write_text(yaml.safe_dump(values))


def _pretraining(place: Path) -> None:
    pretraining_runs.make_place(place)


def _benchmark(place: Path) -> None:
    superb_runs.corpora(place / "data", ["pr"])
    superb_runs.recipes(place / "recipes", ["pr"], total_steps=10, save_step=5, eval_step=5)
    superb_runs.upstream(place / "model")


def _compress(place: Path, out: Path) -> int:
    return main(["compress", str(place / "run.yaml"), "--out", str(out)])


def _superb(place: Path, out: Path) -> int:
    batch = ("--set", "downstream_expert.corpus.batch_size=12")  # all of it: their order plays no part
    return main(superb_runs.command(place, "pr", *batch, out=os.path.relpath(out, place))[3:])


def _pretrain(place: Path, out: Path) -> int:
    if any(out.glob("states-*.ckpt")):
        return main(["run_pretrain", "-e", str(out), "--device", "cpu"])
    files = ["-g", str(place / "g1.yaml"), "-c", str(place / "c1.yaml")]
    return main(["run_pretrain", "-u", "dphubert", *files, "-n", "x", "-p", str(out), "--device", "cpu"])


def _free_superb(place: Path, out: Path) -> int:
    debian_packages.shrink()
    return as_command(lambda: build(out, ["ks"], place / "debs", tables=place / "tables"))()


COMMANDS = (
    Command(
        "compress",
        _compress,
        _short,
        ("model/*", "pruned/*", "results.json", "projections.safetensors"),
        fresh=False,
    ),
    Command("convert", lambda place, out: main(["convert", str(place / "model"), str(out)]), _model, ("*",)),
    Command(
        "export-hub",
        lambda place, out: main(["export-hub", str(place / "model"), str(out)]),
        _model,
        ("expert.py", "requirements.txt", "dphubert_export_*/**/*"),
    ),
    Command(
        "export",
        lambda place, out: main(
            ["export", str(place / "model"), str(out), "--format", "onnx", "--overwrite"]
        ),
        _model,
        (),
        fresh=False,
    ),
    Command(
        "manifest",
        lambda place, out: main(
            ["manifest", str(place / "audio"), "--out", str(out / "x.tsv"), "--overwrite"]
        ),
        _short,
        ("*",),
        fresh=False,
    ),
    Command(
        "free-superb",
        _free_superb,
        debian_packages.build,
        ("speech_commands*/**/*", "splits.json"),
        fresh=False,
    ),
    Command("superb run", _superb, _benchmark, ("pr/test-*.ark",), fresh=False, every=RARELY),
    Command(
        "run_pretrain", _pretrain, _pretraining, ("states-20/model.safetensors",), fresh=False, every=RARELY
    ),
)
"""Each command that writes more than a line; the last ones run under s3prl, which takes half a minute."""
