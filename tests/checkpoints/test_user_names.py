"""Names that users give to checkpoints, in the files that hold them."""

from __future__ import annotations

import os
import pwd

import pytest

from s3prl_dphubert.checkpoints import user_names
from s3prl_dphubert.checkpoints.user_names import FILES, NamedCheckpoint
from s3prl_dphubert.errors import ConfigError


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Write files, and list them in the environment variable."""

    def write(*texts):
        paths = [tmp_path / f"upstreams{number}.yaml" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        monkeypatch.setenv(FILES, os.pathsep.join(map(str, paths)))
        return user_names.read_files()

    return write


def test_sources_and_options(listed, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    named, faults = listed(
        "here: run/model\nabsolute: /nowhere/model\nhub: {ckpt: user/repo@v1, padding: exact}\n",
        "teacher: hubert_base\n",
    )
    assert faults == []
    assert named == {
        "here": NamedCheckpoint("here", str(tmp_path / "run" / "model")),
        "absolute": NamedCheckpoint("absolute", "/nowhere/model"),
        "hub": NamedCheckpoint("hub", "user/repo@v1", {"padding": "exact"}),
        "teacher": NamedCheckpoint("teacher", "hubert_base"),
    }
    assert user_names.find("hub").ckpt == "user/repo@v1"
    assert user_names.find("other") is None


def test_the_name_of_a_teacher_comes_before_a_folder(listed, tmp_path):
    (tmp_path / "hubert_base").mkdir()
    named, _ = listed("teacher: hubert_base\nfolder: ./hubert_base\n")
    assert named["teacher"].ckpt == "hubert_base"
    assert named["folder"].ckpt == str(tmp_path / "hubert_base")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my-model: x/y", "name is 'my-model', allowed: letters, digits and _, beginning with a letter"),
        ("1: x/y", "name is 1, allowed: letters"),
        ("_mine: x/y", "name is '_mine', allowed"),
        ("mine_local: x/y", "name is 'mine_local', allowed: other endings than _local, _url"),
        ("mine:", "ckpt is None, expected a path"),
        ("mine: {padding: exact}", "ckpt is None, expected a path"),
        ("mine: [1]", r"ckpt is \[1\], expected a path"),
    ],
)
def test_a_wrong_line_is_left_out_and_the_others_stay(text, message, listed):
    named, faults = listed(f"good: x/y\n{text}\n")
    assert list(named) == ["good"]
    (fault,) = faults
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(fault)
    assert "upstreams0.yaml: " in fault


def test_files_that_cannot_be_used(listed, tmp_path, monkeypatch):
    named, faults = listed("- a list\n", "a: [\n", "mine: x/y\n", "mine: x/z\n")
    assert named == {"mine": NamedCheckpoint("mine", "x/y")}
    assert ["expected lines of name: source" in faults[0], "as YAML" in faults[1]] == [True, True]
    assert "mine is there twice, in another file for x/y" in faults[2]
    monkeypatch.setenv(FILES, str(tmp_path / "none.yaml"))
    assert "none.yaml: no such file" in user_names.read_files()[1][0]


def test_the_file_in_the_configuration_folder(tmp_path, monkeypatch):
    monkeypatch.delenv(FILES, raising=False)
    with monkeypatch.context() as bare:
        bare.delenv("XDG_CONFIG_HOME", raising=False)
        bare.delenv("HOME")
        bare.setattr(pwd, "getpwuid", {}.__getitem__)  # a user without a home, as in containers
        assert user_names.read_files() == ({}, [])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_names.read_files() == ({}, [])
    (tmp_path / "s3prl-dphubert").mkdir()
    (tmp_path / "s3prl-dphubert" / "upstreams.yaml").write_text("mine: x/y\n")
    assert list(user_names.read_files()[0]) == ["mine"]
    monkeypatch.setenv(FILES, os.devnull)
    assert user_names.read_files() == ({}, [])
