"""Files appear whole or not at all, and never in the place of something else."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from s3prl_dphubert.errors import CheckpointError
from s3prl_dphubert.utils.files import new_folder, read_json, replacing, user_cache_dir, write_text


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


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


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("S3PRL_DPHUBERT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "s3prl-dphubert"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / ".cache" / "s3prl-dphubert"
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "own"))
    assert user_cache_dir() == tmp_path / "own"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff"])
def test_json_that_holds_no_mapping_is_empty(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) == {}
    path.write_text('{"a": [1, null]}')
    assert read_json(path) == {"a": [1, None]}
