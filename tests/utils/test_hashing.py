"""Digests are those of the programs that everybody has."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

import pytest

from s3prl_dphubert.utils.hashing import CHUNK, git_blob_sha1, sha256_file, sha256_tree


@pytest.mark.parametrize("content", [b"", b"abc", bytes(CHUNK + 1)])
def test_files_have_the_digests_of_other_programs(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()
    assert sha256_file(path, path) == hashlib.sha256(content + content).hexdigest()
    if shutil.which("git"):
        done = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
        assert git_blob_sha1(path) == done.stdout.strip()


def test_a_tree_changes_with_paths_and_contents(tmp_path):
    def digest():
        return sha256_tree(tmp_path, sorted(path for path in tmp_path.rglob("*") if path.is_file()))

    digests = {digest()}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_text("1")
    digests.add(digest())
    (tmp_path / "a" / "one").write_text("2")
    digests.add(digest())
    (tmp_path / "a" / "one").rename(tmp_path / "a" / "two")
    digests.add(digest())
    assert len(digests) == 4
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest() not in digests
    (tmp_path / "b").rename(tmp_path / "a")
    assert digest() in digests
