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
from tests.torture import damaged_files, disk, figures, inputs, kills, processes, submission
from tests.torture.commands import COMMANDS, Command, Undisturbed
from tests.torture.figures import FAILED, REFUSED, SAME, SOUND, Record
from tests.torture.power import Journal
from tests.torture.restrictions import exceed_quota, without_privileges
from tests.torture.sandbox import fork, line_fault, warm_up

pytest.importorskip("h5py", reason="s3prl's diarization writes HDF5")

SEED = 20


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture(scope="module", autouse=True)
def _warm():
    warm_up()


def assert_held(cases, number):
    """None of the first cases failed; returns them."""
    rows = [case.run() for case in itertools.islice(cases, number)]
    wrong = [f"{row.kind} {row.number}: {row.detail}" for row in rows if row.outcome == FAILED]
    assert not wrong, "\n".join(wrong[:3])
    return rows


@pytest.mark.slow
def test_damage(tmp_path):
    quick = len(damaged_files.KINDS) - len(damaged_files.SLOW)
    rows = assert_held(inputs.cases(SEED, tmp_path), 2 + 20 * quick)
    assert {row.kind for row in rows} == set(damaged_files.KINDS)
    assert {row.outcome for row in rows} == {SOUND, REFUSED}


@pytest.mark.slow
def test_files_that_are_not_damaged_are_read(tmp_path, monkeypatch):
    """So what is refused is refused for its damage; right submissions have tests of their own."""
    for name in ("damaged", "flip"):
        monkeypatch.setattr(damaged_files.damage, name, lambda data, *rest: data)
    for name in ("changed", "reshaped"):
        monkeypatch.setattr(damaged_files.damage, name, lambda values, random: values)
    monkeypatch.setattr(damaged_files, "text_damage", lambda path, random: None)
    monkeypatch.setattr(damaged_files, "BOMBS", (b"name\twords\tword\tphones\n",))
    rows = assert_held(inputs.cases(1, tmp_path), 3 * len(damaged_files.KINDS))
    refused = {row.kind for row in rows if row.outcome != SOUND}
    assert refused == {"hostile pickle", "predict.zip"}


@pytest.mark.slow
def test_kills(tmp_path):
    quick = [command for command in COMMANDS if command.name in ("compress", "convert", "manifest")]
    rows = assert_held(kills.cases(SEED, tmp_path, quick), 6)
    assert sum(row.disturbances for row in rows) >= 4


@pytest.mark.slow
def test_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "QUICK", tuple(c for c in disk.QUICK if c.name in ("convert", "manifest")))
    rows = assert_held(disk.cases(SEED, tmp_path), len(disk.QUICK) * len(disk.CONDITIONS) + 4)
    assert len({row.kind.partition(":")[0] for row in rows}) == len(disk.CONDITIONS) + 4
    assert {row.outcome for row in rows} >= {SAME, REFUSED}


@pytest.mark.slow
@pytest.mark.torchrun
def test_processes(tmp_path):
    rows = assert_held(processes.cases(SEED, tmp_path), len(processes.DISTURBANCES))
    assert [row.kind for row in rows] == list(processes.DISTURBANCES)


@pytest.mark.slow
def test_submission(tmp_path):
    rows = assert_held(submission.cases(SEED, tmp_path), 30)
    assert [row.outcome for row in rows].count(REFUSED) >= 20


def refuse(text):
    raise ConfigError(text)


USES = {
    "nothing": lambda: None,
    "a refusal": lambda: refuse("x is 3"),
    "ZeroDivisionError": lambda: 1 / 0,
    "something was executed: \nEXECUTED os.system": lambda: os.system("true"),
    "EXECUTED subprocess.Popen": lambda: subprocess.run(["true"], check=True),
    "MemoryError": lambda: bytearray(3 << 30),
    "SystemExit": lambda: sys.exit(2),
    "has a traceback": lambda: (print("Traceback", file=sys.stderr), refuse("x")),
    "exit code -9": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit code 3": lambda: os._exit(3),
    "more than the time allowed": lambda: time.sleep(60),
}


def test_a_fault_would_show(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "KINDS", dict.fromkeys(USES))
    for name, use in USES.items():
        monkeypatch.setitem(inputs.KINDS, name, lambda random, folder, original, use=use: use)
    worker = inputs.Worker(lambda request: inputs.serve(0, tmp_path, request), tmp_path / "log.txt", 2)
    rows = {name: inputs.trial(worker, tmp_path, name, 0) for name in USES}
    assert (rows["nothing"].outcome, rows["nothing"].detail) == (SOUND, "")
    assert (rows["a refusal"].outcome, rows["a refusal"].detail) == (REFUSED, "s3prl-dphubert: x is 3")
    for name, row in list(rows.items())[2:]:
        assert row.outcome == FAILED, name
        assert name.removeprefix("something was executed: \n") in row.detail
    again = inputs.trial(worker, tmp_path, "nothing", 1)  # by another child
    assert again.outcome == SOUND
    worker.close()
    assert (tmp_path / "ZeroDivisionError-0").exists() and not (tmp_path / "nothing-0").exists()


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


def careless(place, out):
    """Write in place, without waiting for the disk."""
    out.mkdir(exist_ok=True)
    for number in range(30):
        with (out / "x").open("a") as file:
            file.write(f"{number}\n")
        time.sleep(0.01)
    return 0


CARELESS = Command("careless", careless, lambda place: None, ("x",), fresh=False)


def test_a_command_that_a_kill_breaks_would_show(tmp_path):
    rows = [kills.trial(CARELESS, number, SEED, tmp_path) for number in range(4)]
    broken = [row.detail for row in rows if row.outcome == FAILED]
    assert len(broken) >= 2  # unless it is killed before it begins
    assert set(broken) == {"other files than undisturbed: x"}


def test_a_power_cut_takes_what_was_not_on_the_disk(tmp_path):
    disk, journal = tmp_path / "disk", Journal(tmp_path / "journal")
    disk.mkdir()
    (disk / "old").write_text("old")

    def write(name, synced, folder_synced):
        part = disk / f"{name}.part"
        with part.open("w") as file:
            file.write("new")
            file.flush()
            if synced:
                os.fsync(file.fileno())
        os.replace(part, disk / name)
        if folder_synced:
            number = os.open(disk, os.O_RDONLY)
            os.fsync(number)
            os.close(number)

    def work():
        journal.keep()
        write("safe", True, True)
        write("early", False, True)
        write("old", True, False)

    assert fork(work, tmp_path / "stderr.txt").wait(20).code == 0
    assert journal.early() == [f"{disk / 'early.part'} -> {disk / 'early'}"]

    class Worst:
        def integers(self, low, high=None):
            return low if high is not None else low - 1

    journal.lose(disk, Worst())
    assert (disk / "safe").read_text() == "new"
    assert (disk / "early").read_text() == ""
    assert (disk / "old").read_text() == ""  # it was there before, and never waited for
    assert (disk / "old.part").read_text() == "new"


def test_an_unsynced_rename_would_show(tmp_path):
    def hasty(place, out):
        out.mkdir(exist_ok=True)
        for _ in range(100):
            (out / "x.part").write_text("1")
            os.replace(out / "x.part", out / "x")
            time.sleep(0.01)
        return 0

    command = Command("hasty", hasty, lambda place: None, ("x",), fresh=False)
    undisturbed = Undisturbed(command, tmp_path, 0.5, {}, changes=100)
    (tmp_path / "trial").mkdir()
    fault = processes.power_cut(undisturbed, tmp_path / "trial", np.random.default_rng(0))
    assert fault.startswith("renamed before it was on the disk")


def test_a_quota_refuses_what_is_written_and_lets_print(tmp_path):
    def work():
        (tmp_path / "before").write_text("x")
        exceed_quota()
        print("printed", file=sys.stderr)
        (tmp_path / "after").write_text("x")

    child = fork(work, tmp_path / "stderr.txt").wait(20)
    assert child.code == 1
    assert child.text.startswith("printed") and "Disk quota exceeded" in child.text
    assert (tmp_path / "before").read_text() == "x"


def test_without_privileges_a_folder_of_others_cannot_be_written(tmp_path):
    place = tmp_path / "others"
    place.mkdir(mode=0o555)
    child = fork(lambda: (without_privileges(), (place / "x").touch()), tmp_path / "stderr.txt").wait(20)
    assert child.code == 1
    assert "PermissionError" in child.text


def test_a_passing_fault_would_show(tmp_path, monkeypatch):
    monkeypatch.setitem(submission.FAULTS, "a header", lambda entry, rows, random: None)
    assert submission.trial("ks_public/predict.txt", "a header", 0, 0, tmp_path).outcome == FAILED


def test_the_runner_goes_on_where_the_record_ends(tmp_path, capsys):
    words = ["--minutes", "0.01", "--seed", "3", "--parts", "submission"]
    words += ["--record", str(tmp_path / "records")]
    kinds = []
    for number in range(2):
        assert runner.main([*words, "--out", str(tmp_path / str(number))]) == 0
        (folder,) = (tmp_path / str(number)).iterdir()
        rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
        assert set(rows[0]) == {"part", "kind", "number", "outcome", "detail", "seconds", "disturbances"}
        kinds += [(row["kind"], row["number"]) for row in rows]
    assert len(kinds) == len(set(kinds)) > len(submission.NOT_CHECKABLE)
    record = Record.load(tmp_path / "records" / "seed-3.json")
    assert record.total().trials == record.total("submission").trials == len(kinds)
    assert record.total().skipped >= len(submission.NOT_CHECKABLE)
    printed = capsys.readouterr().out
    assert "| seed | submission | failed | failed in earlier code | minutes | commit | on |" in printed
    assert f"| all |  | {record.total().disturbances:,} | " in printed


def test_all_stops_at_its_number(tmp_path, monkeypatch):
    monkeypatch.setitem(figures.ALL, "submission", 3)
    words = ["--all", "--seed", "3", "--parts", "submission", "--record", str(tmp_path), "--out"]
    for number in range(2):
        assert runner.main([*words, str(tmp_path / str(number))]) == 0
    assert Record.load(tmp_path / "seed-3.json").total().disturbances == 3


def test_the_error_of_a_case_is_a_failure_until_it_is_mended(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError("no space for the torture")

    monkeypatch.setitem(figures.ALL, "submission", 3)
    words = ["--all", "--parts", "submission", "--record", str(tmp_path), "--out"]
    with monkeypatch.context() as context:
        context.setattr(submission, "trial", broken)
        assert runner.main([*words, str(tmp_path / "1"), "--minutes", "0.001"]) == 1
    record = Record.load(tmp_path / "seed-0.json")
    trials = record.total().trials
    assert record.total().failed == len(record.failures) > 0
    assert "no space for the torture" in record.failures[0]["detail"]

    assert runner.main([*words, str(tmp_path / "2"), "--minutes", "0"]) == 0  # tries again what failed
    again = Record.load(tmp_path / "seed-0.json")
    assert (again.total().trials, again.total().failed, again.failures) == (trials, 0, [])
    assert again.mended == record.failures
    assert again.total().refused > 0


def test_the_committed_records_hold_and_have_two_seeds():
    records = [Record.load(path) for path in sorted(figures.RECORDS.glob("seed-*.json"))]
    assert len({record.seed for record in records}) >= 2
    tried = {part: {kind for record in records for kind in record.counts[part]} for part in runner.SHARES}
    assert tried["damage"] == set(damaged_files.KINDS)
    assert tried["kills"] == {command.name for command in COMMANDS}
    assert tried["disk"] >= {"limit of file size", "full disk", "read-only disk", "quota"}
    assert tried["processes"] == set(processes.DISTURBANCES)
    for record in records:
        assert set(record.counts) == set(runner.SHARES)
        assert record.total().failed == len(record.failures) == 0, record.failures


def test_the_same_seed_gives_the_same_trials(tmp_path):
    first, second = (
        [case.run() for case in itertools.islice(submission.cases(5, tmp_path / str(again)), 12)]
        for again in range(2)
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
