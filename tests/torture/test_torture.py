"""A few trials of each part of the torture, and that a fault would show in it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from s3prl_dphubert.errors import ConfigError
from tests.helpers.golden import ROOT
from tests.torture import __main__ as runner
from tests.torture import damaged_files, disk, figures, kills, processes, submission
from tests.torture.commands import COMMANDS, Command, Undisturbed
from tests.torture.sandbox import (
    FAILED,
    REFUSED,
    SAME,
    SOUND,
    as_command,
    bounded,
    fork,
    judged,
    line_fault,
    warm_up,
)

pytest.importorskip("h5py", reason="s3prl's diarization writes HDF5")

SEED = 20


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture(scope="module", autouse=True)
def _warm():
    warm_up()


def assert_held(trials):
    """None failed; returns them."""
    rows = list(trials)
    wrong = [f"{row.kind} {row.number}: {row.detail}" for row in rows if row.outcome == FAILED]
    assert not wrong, "\n".join(wrong[:3])
    return rows


@pytest.mark.slow
def test_damage(tmp_path):
    quick = len(damaged_files.KINDS) - len(damaged_files.SLOW)
    rows = assert_held(itertools.islice(damaged_files.trials(SEED, tmp_path), 2 + 6 * quick))
    assert {row.kind for row in rows} == set(damaged_files.KINDS)
    assert {row.outcome for row in rows} == {SOUND, REFUSED}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(damaged_files.KINDS.keys() - {"hostile pickle", "predict.zip"}))
def test_files_that_are_not_damaged_are_read(tmp_path, monkeypatch, kind):
    """So what is refused is refused for its damage; right submissions have tests of their own."""
    for name in ("damaged", "flip"):
        monkeypatch.setattr(damaged_files.damage, name, lambda data, *rest: data)
    for name in ("changed", "reshaped"):
        monkeypatch.setattr(damaged_files.damage, name, lambda values, random: values)
    monkeypatch.setattr(damaged_files, "text_damage", lambda path, random: None)
    monkeypatch.setattr(damaged_files, "BOMBS", (b"name\twords\tword\tphones\n",))
    originals = damaged_files.Originals(tmp_path / "originals")
    for number in range(3):
        row = damaged_files.trial(kind, damaged_files.KINDS[kind], number, 1, tmp_path, originals)
        assert row.outcome == SOUND, row.detail


@pytest.mark.slow
def test_kills(tmp_path):
    quick = [command for command in COMMANDS if command.name in ("compress", "convert", "manifest")]
    rows = assert_held(itertools.islice(kills.trials(SEED, tmp_path, quick), 6))
    assert sum(row.disturbances for row in rows) >= 4


@pytest.mark.slow
def test_disk(tmp_path):
    rows = assert_held(itertools.islice(disk.trials(SEED, tmp_path), 32))
    assert len({row.kind.partition(":")[0] for row in rows}) >= 7
    assert {row.outcome for row in rows} >= {SAME, REFUSED}


@pytest.mark.slow
@pytest.mark.torchrun
def test_processes(tmp_path):
    rows = assert_held(itertools.islice(processes.trials(SEED, tmp_path), len(processes.DISTURBANCES)))
    assert [row.kind for row in rows] == list(processes.DISTURBANCES)


@pytest.mark.slow
def test_submission(tmp_path):
    rows = assert_held(itertools.islice(submission.trials(SEED, tmp_path), 30))
    assert [row.outcome for row in rows].count(REFUSED) >= 20


def ends(tmp_path, function, seconds=20):
    return judged(fork(as_command(function), tmp_path / "stderr.txt", prepare=bounded).wait(seconds))


def refuse(text):
    raise ConfigError(text)


def test_a_fault_would_show(tmp_path):
    assert ends(tmp_path, lambda: None) == (SOUND, "")
    assert ends(tmp_path, lambda: refuse("x is 3")) == (REFUSED, "s3prl-dphubert: x is 3")
    for fault, text in (
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "exit code -9"),
        (lambda: os.system("true"), "something was executed"),
        (lambda: subprocess.run(["true"], check=True), "something was executed"),
        (lambda: bytearray(3 << 30), "MemoryError"),
        (lambda: (print("Traceback", file=sys.stderr), refuse("x")), "traceback"),
        (lambda: refuse("x"), "x"),
        (lambda: os._exit(3), "exit code 3"),
    ):
        outcome, detail = ends(tmp_path, fault)
        assert text in detail
        assert outcome == (REFUSED if text == "x" else FAILED)
    outcome, detail = ends(tmp_path, lambda: time.sleep(60), seconds=0.3)
    assert (outcome, "time allowed" in detail) == (FAILED, True)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("s3prl-dphubert: x\n", ""),
        ("WARNING y\ns3prl-dphubert: x\n", ""),
        ("", "not one line"),
        ("s3prl-dphubert: x\nmore\n", "not one line"),
        ("s3prl-dphubert: x\ns3prl-dphubert: y\n", "not one line"),
        ("s3prl-dphubert: \x1b[2J\n", "control characters"),
        ("Traceback (most recent call last)\ns3prl-dphubert: x\n", "traceback"),
    ],
)
def test_a_refusal_is_one_printable_line(text, fault):
    assert fault in line_fault(text)
    assert bool(fault) == bool(line_fault(text))


def test_a_command_that_a_kill_breaks_would_show(tmp_path):
    def careless(place, out):
        out.mkdir()
        for number in range(50):
            (out / "x").write_text(str(number))
            time.sleep(0.01)
        return 0

    command = Command("careless", careless, lambda place: None, ("x",))
    undisturbed = Undisturbed.of(command, tmp_path)
    outcomes = {kills.trial(undisturbed, number, SEED).outcome for number in range(4)}
    assert outcomes == {FAILED}


def test_an_unsynced_rename_would_show(tmp_path):
    def careless(place, out):
        out.mkdir(exist_ok=True)
        for _ in range(100):
            (out / "x.part").write_text("1")
            os.replace(out / "x.part", out / "x")
            time.sleep(0.01)
        return 0

    command = Command("careless", careless, lambda place: None, ("x",), fresh=False)
    undisturbed = Undisturbed(command, tmp_path, 0.5, {})
    (tmp_path / "trial").mkdir()
    fault = processes.power_cut(undisturbed, tmp_path / "trial", np.random.default_rng(0))
    assert fault.startswith("renamed before it was on the disk")


def test_a_passing_fault_would_show(tmp_path, monkeypatch):
    monkeypatch.setitem(submission.FAULTS, "a header", lambda entry, rows, random: None)
    assert submission.trial("ks_public/predict.txt", "a header", 0, 0, tmp_path).outcome == FAILED


def test_the_runner_writes_lines_a_table_and_the_page(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# Figures\n\n{figures.BEGIN}old\n{figures.END}")
    words = ["--minutes", "0.01", "--seed", "3", "--parts", "submission", "--out", str(tmp_path / "out")]
    assert runner.main([*words, "--page", str(page)]) == 0
    (folder,) = (tmp_path / "out").iterdir()
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert len(rows) > len(submission.NOT_CHECKABLE)
    assert set(rows[0]) == {"part", "kind", "number", "outcome", "detail", "seconds", "disturbances"}
    printed = capsys.readouterr().out
    assert "Seed 3, commit " in printed and "| submission | " in printed
    assert "| all |  | " in page.read_text() and "old" not in page.read_text()


def test_the_same_seed_gives_the_same_trials(tmp_path):
    first, second = (
        list(itertools.islice(submission.trials(5, tmp_path / str(again)), 12)) for again in range(2)
    )
    assert [(row.kind, row.outcome, row.detail) for row in first] == [
        (row.kind, row.outcome, row.detail) for row in second
    ]


def test_unknown_parts_are_refused():
    with pytest.raises(SystemExit):
        runner.parse(["--parts", "fire"])
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "--minutes" in done.stdout
