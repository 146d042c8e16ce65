"""Trouble of the machine is one line and exit code 2, Ctrl-C one line and 130."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from s3prl_dphubert import cli
from s3prl_dphubert.cli.machine_trouble import describe
from s3prl_dphubert.compression import pipeline
from s3prl_dphubert.training import trainer as training
from tests.helpers.compression_runs import make_place, settings
from tests.helpers.golden import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("place"))
    values = settings(place)
    for stage in ("stage1", "stage2"):
        values[stage] |= {"updates": 4, "warmup": 1}
    (place / "run.yaml").write_text(yaml.safe_dump(values))
    return place


def fail(place, out, capsys):
    """Compress; return the last line on stderr, after checking that it is the only one of the failure."""
    assert cli.main(["compress", str(place / "run.yaml"), "--out", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("s3prl-dphubert: ") for line in lines[-2:]] == [False, True], lines
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_a_full_disk(place, tmp_path, monkeypatch, capsys):
    """torch turns the error of the system into one of its own."""

    def save(content, path):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(training.torch, "save", save)
    assert "No space left on device" in fail(place, tmp_path / "out", capsys)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, "Read-only file system", "/out/.lock"),
        PermissionError(errno.EACCES, "Permission denied", "/out/.lock"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "/out/.lock"),
    ],
)
def test_a_disk_that_cannot_be_written(place, tmp_path, monkeypatch, capsys, error):
    def refuse(*arguments):
        raise error

    monkeypatch.setattr(pipeline, "run_directory", refuse)
    assert cli.main(["compress", str(place / "run.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"s3prl-dphubert: /out/.lock: {error.strerror}\n"


def test_names(place, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out, message in (
        (tmp_path / "file", "a file is in the way"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        assert cli.main(["compress", str(place / "run.yaml"), "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert len(line) < 500


def test_names_that_are_not_utf8(place, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [os.fsencode(part) for part in (sys.executable, "-m", "s3prl_dphubert", "compress")]
    run = [os.fsencode(place / "run.yaml"), b"--out", os.fsencode(tmp_path) + b"/\xff"]
    done = subprocess.run([*command, *run], capture_output=True, env=environment)
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 2)
    if done.returncode:
        assert done.stderr.splitlines()[-1].startswith(b"s3prl-dphubert: ")


def test_a_killed_reader(place, tmp_path, monkeypatch, capsys):
    real, killed = training.loader, []

    def murderous(*arguments, **options):
        batches = real(*arguments, **options)
        iterator = iter(batches)
        if batches.num_workers:
            os.kill(iterator._workers[0].pid, signal.SIGKILL)
            killed.append(iterator)
        return iterator

    monkeypatch.setattr(training, "loader", murderous)
    values = yaml.safe_load((place / "run.yaml").read_text())
    values["stage1"]["num_workers"] = 1
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    assert cli.main(["compress", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert len(killed) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("s3prl-dphubert: a process that reads audio was killed")


def test_errors_of_the_package_itself_keep_their_traceback(monkeypatch):
    for error in (RuntimeError("shape mismatch"), TypeError("a fault"), KeyError("x")):
        assert describe(error) is None
    assert describe(MemoryError()).startswith("out of memory")
    assert describe(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")).startswith("the GPU is out")
    assert describe(RuntimeError("Could not determine home directory.")).startswith("this user has no home")

    def fault(arguments):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(cli.compression, "_compress", fault)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        cli.main(["compress", "x", "--out", "y"])


INTERRUPTED = """
import os, signal, sys
from s3prl_dphubert.cli import main
from s3prl_dphubert.data import batches
from s3prl_dphubert.training.trainer import Trainer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without it
if sys.argv[1] == "step":
    def step(self, batches):
        os.kill(os.getpid(), signal.SIGINT)
    Trainer.train_step = step
else:  # as the readers are being forked
    os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["step", "fork"])
def test_ctrl_c_is_one_line(place, tmp_path, moment):
    values = yaml.safe_load((place / "run.yaml").read_text())
    values["stage1"]["num_workers"] = 2
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "script.py").write_text(INTERRUPTED)
    command = [sys.executable, str(tmp_path / "script.py"), moment, "compress", str(tmp_path / "run.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "s3prl-dphubert: interrupted; the same command goes on where it was"
    )
    assert not (tmp_path / "out" / "model").exists()
    assert time.monotonic() - began < 100


def test_the_end_of_a_run_is_summed_up(place, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["compress", str(place / "run.yaml"), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'model'}\n"
    for text in (
        "parameters (M)",
        "% of the teacher",
        "MACs of 1 s (G)",
        "after stage 1 (masked)",
        "after stage 2",
        f"next: s3prl-dphubert inspect {out / 'model'}",
        f"      s3prl-dphubert report {out} --measure",
    ):
        assert text in captured.err
    assert "stage1 on cpu 4/4, " in captured.err
