"""Files appear whole or not at all, and never in the place of something else."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from s3prl_dphubert.errors import CheckpointError, RunError
from s3prl_dphubert.utils.files import (
    new_folder,
    private_cache_dir,
    replacing,
    user_cache_dir,
    write_text,
)
from tests.helpers.golden import ROOT

WRITE = """
import sys, time
from pathlib import Path
from s3prl_dphubert.utils import files
with getattr(files, sys.argv[1])(Path("a")) as partial:
    (partial / "x" if partial.is_dir() else partial).write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    """Or else a power cut could leave an empty file under the final name."""
    events, names = [], {}
    real = {name: getattr(os, name) for name in ("open", "fsync", "replace")}

    def opened(path, *arguments, **options):
        number = real["open"](path, *arguments, **options)
        names[number] = os.path.basename(path)
        return number

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", lambda number: events.append(names[number]) or real["fsync"](number))
    monkeypatch.setattr(os, "replace", lambda a, b: events.append("renamed") or real["replace"](a, b))
    write_text(tmp_path / "a.txt", "new")
    assert [event.endswith(".part") for event in events] == [True, False, False]
    assert events[1:] == ["renamed", tmp_path.name]
    events.clear()
    with new_folder(tmp_path / "b") as partial:
        (partial / "inner").mkdir()
        for name in ("x", "inner/y"):
            (partial / name).write_text("new")
    assert {"x", "y", "inner"} < set(events[: events.index("renamed")])
    assert events[-2:] == ["renamed", tmp_path.name]


def test_what_is_no_file_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "said")
    reader.join()
    assert heard == ["said"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_appears_whole_and_once(tmp_path):
    with pytest.raises(KeyError), new_folder(tmp_path / "a") as partial:
        (partial / "x").write_text("")
        raise KeyError
    assert os.listdir(tmp_path) == []
    with new_folder(tmp_path / "a") as partial:
        (partial / "x").write_text("")
    with pytest.raises(CheckpointError, match="exists already"), new_folder(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path / "a") == ["x"]


@pytest.mark.parametrize("kind", ["replacing", "new_folder"])
def test_leftovers_of_killed_processes_are_removed_and_those_in_use_stay(tmp_path, kind):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITE, kind]
    writers = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"half\n"
        assert len(os.listdir(tmp_path)) == 2
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        with (replacing if kind == "replacing" else new_folder)(tmp_path / "a") as partial:
            left = {path.name for path in tmp_path.iterdir()} - {partial.name}
            assert len(left) == 1  # the one that is being written
            if kind == "replacing":
                partial.write_text("whole")
        assert {path.name for path in tmp_path.iterdir()} == {"a", *left}
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    (tmp_path / "a").rename(tmp_path / "b")
    with (replacing if kind == "replacing" else new_folder)(tmp_path / "a"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_two_writers_of_one_file_do_not_remove_each_others_temporaries(tmp_path):
    path, faults, stop = tmp_path / "a", [], time.monotonic() + 1

    def write(text):
        try:
            while time.monotonic() < stop:
                write_text(path, text)
        except OSError as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(set(path.read_text())) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_planted_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / f".a.{os.getpid()}.part").symlink_to(secret)
    (tmp_path / ".a.00000000.part").symlink_to(secret)
    write_text(tmp_path / "a", "text")
    assert secret.read_text() == "mine"
    assert not (tmp_path / "a").is_symlink()


def test_the_private_cache_is_of_one_user(tmp_path, monkeypatch):
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "cache"))
    before = os.umask(0)
    try:
        folder = private_cache_dir("sid", "0123")
    finally:
        os.umask(before)
    assert folder == tmp_path / "cache" / "sid" / "0123"
    folders = [folder, folder.parent, folder.parent.parent]
    assert [stat.S_IMODE(path.stat().st_mode) for path in folders] == [0o700] * 3
    folder.chmod(0o777)
    assert private_cache_dir("sid", "0123").stat().st_mode & 0o022 == 0
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(RunError, match=r"cache: belongs to user \d+, .* set S3PRL_DPHUBERT_CACHE"):
        private_cache_dir("sid", "0123")


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch):
    for name in ("S3PRL_DPHUBERT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(RunError, match="this user has no home folder; set S3PRL_DPHUBERT_CACHE"):
        user_cache_dir()


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("S3PRL_DPHUBERT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "s3prl-dphubert"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / ".cache" / "s3prl-dphubert"
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "own"))
    assert user_cache_dir() == tmp_path / "own"
