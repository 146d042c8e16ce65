"""Debian packages: fetched from a folder, apt or a mirror, verified, and read without unpacking."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.free_superb.build import TABLES
from s3prl_dphubert.free_superb.sources import deb, packages
from tests.helpers import debian_packages

NAME = debian_packages.TEXTS


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A mirror with one package, and its row of the table."""
    folder = tmp_path_factory.mktemp("mirror")
    (folder / "pool").mkdir()
    path = folder / "pool" / f"{NAME}_1.0_all.deb"
    path.write_bytes(debian_packages.deb({"usr/share/doc/a.txt": b"one", "usr/share/b": b"two"}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return folder, packages.Package(NAME, "1.0", path.stat().st_size, digest, f"pool/{path.name}")


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def no_apt(monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)


def test_shipped_table_names_everything_that_is_decoded():
    table = packages.table(TABLES / "packages.tsv")
    sources = {source.package for source in debian_packages.SOURCES}
    assert len(sources) == 19 and sources <= table.keys() and NAME in table
    for package in table.values():
        assert len(package.sha256) == 64 and package.bytes > 10_000
        assert package.pool.startswith("pool/main/") and package.file.startswith(f"{package.name}_")


def test_reads_files_without_unpacking(small):
    folder, package = small
    path = folder / package.pool
    assert list(deb.files(path, r"^/usr/share/doc/")) == [("/usr/share/doc/a.txt", b"one")]
    assert [name for name, _ in deb.files(path, "")] == ["/usr/share/doc/a.txt", "/usr/share/b"]


@pytest.mark.parametrize("damage", [b"", b"no archive", b"!<arch>\n", "cut"])
def test_damaged_package_is_an_error_that_names_it(small, tmp_path, damage):
    folder, package = small
    path = tmp_path / "damaged.deb"
    whole = (folder / package.pool).read_bytes()
    path.write_bytes(whole[:-100] if damage == "cut" else damage)
    with pytest.raises(DataError, match=r"damaged\.deb: not readable as a Debian package"):
        list(deb.files(path, ""))


def test_folder_is_used_as_it_lies(small, tmp_path):
    folder, package = small
    paths = packages.fetch([package], tmp_path / "out", folder / "pool")
    assert paths == {NAME: folder / package.pool}
    assert not (tmp_path / "out").exists()


def test_folder_without_the_package_says_how_to_get_it(small, tmp_path):
    with pytest.raises(DataError, match=rf"holds no {NAME}_\*.deb; apt-get download {NAME}=1.0"):
        packages.fetch([small[1]], tmp_path, tmp_path)


@pytest.mark.parametrize("damage", ["bits", "size"])
def test_other_content_in_the_folder_is_refused(small, tmp_path, damage):
    folder, package = small
    whole = bytearray((folder / package.pool).read_bytes())
    whole[-1] ^= 1
    (tmp_path / package.file).write_bytes(whole if damage == "bits" else whole + b"x")
    with pytest.raises(DataError, match="has the sha256 .* has " if damage == "bits" else "bytes, .* has "):
        packages.fetch([package], tmp_path / "out", tmp_path)


def test_mirror_is_asked_where_there_is_no_apt(small, tmp_path, no_apt):
    folder, package = small
    mirrors = ((tmp_path / "gone").as_uri(), folder.as_uri())
    fetched = packages.fetch([package], tmp_path / "out", mirrors=mirrors)[NAME]
    assert fetched.read_bytes() == (folder / package.pool).read_bytes()
    again = packages.fetch([package], tmp_path / "out", mirrors=())
    assert again == {NAME: fetched}, "what is there and whole is not fetched again"
    fetched.write_bytes(b"half")
    packages.fetch([package], tmp_path / "out", mirrors=mirrors)
    assert fetched.read_bytes() == (folder / package.pool).read_bytes()


def test_mirror_with_another_file_leaves_nothing(small, tmp_path, no_apt):
    package = small[1]
    (tmp_path / "pool").mkdir()
    (tmp_path / package.pool).write_bytes(b"another version")
    with pytest.raises(DataError, match=r"cannot be fetched .*the file has 15 bytes"):
        packages.fetch([package], tmp_path / "out", mirrors=(tmp_path.as_uri(),))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("works", [True, False])
def test_apt_is_asked_for_the_version_and_a_mirror_after_it(small, tmp_path, monkeypatch, works):
    folder, package = small
    (tmp_path / "bin").mkdir()
    says = f'echo "$@" > {tmp_path}/asked\n'
    does = f"cp {folder / package.pool} .\n" if works else "echo E: no such version >&2; exit 100\n"
    executable(tmp_path / "bin" / "apt-get", f"#!/bin/sh\n{says}{does}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    mirrors = () if works else (folder.as_uri(),)
    fetched = packages.fetch([package], tmp_path / "out", mirrors=mirrors)[NAME]
    assert fetched.read_bytes() == (folder / package.pool).read_bytes()
    assert (tmp_path / "asked").read_text() == f"download {NAME}=1.0\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [package.file]
    if not works:
        with pytest.raises(DataError, match="apt-get: E: no such version"):
            packages.fetch([package], tmp_path / "other", mirrors=())
