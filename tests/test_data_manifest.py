"""Manifests: what a scan finds, skips and writes, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile
from test_data_audio import FORMATS, sine

from s3prl_dphubert.data.manifest import Entry, Manifest, Skipped, check_headers, scan, write
from s3prl_dphubert.errors import DataError


def put(path, seconds=0.5, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sine(seconds, rate), rate, **FORMATS[path.suffix[1:].lower()])
    return path


def names(manifest):
    return [os.path.basename(entry.path) for entry in manifest.entries]


def test_scan_recurses_and_counts_at_16_khz(tmp_path, monkeypatch):
    for name in ("b/c/2.FLAC", "b/1.wav", "3.ogg", "4.Opus", "5.mp3"):
        put(tmp_path / "audio" / name)
    put(tmp_path / "audio" / "0.wav", 2.0, 44_100)
    (tmp_path / "audio" / "notes.txt").write_text("no audio")
    monkeypatch.chdir(tmp_path)
    found, skipped = scan(["audio"])
    assert set(found) == {""}
    assert not skipped
    paths = [entry.path for entry in found[""].entries]
    assert all(os.path.isabs(path) for path in paths)
    assert paths == sorted(paths)
    assert names(found[""]) == ["0.wav", "3.ogg", "4.Opus", "5.mp3", "1.wav", "2.FLAC"]
    assert found[""].entries[0].samples == 32_000
    assert found[""].seconds == pytest.approx(4.5, abs=0.2)


def test_a_file_found_twice_is_listed_once(tmp_path):
    put(tmp_path / "audio" / "deep" / "1.wav")
    (tmp_path / "audio" / "deep" / "loop").symlink_to(tmp_path / "audio")
    (tmp_path / "audio" / "2.wav").symlink_to(tmp_path / "audio" / "deep" / "1.wav")
    (tmp_path / "alias").symlink_to(tmp_path / "audio")
    found, _ = scan([tmp_path / "audio", tmp_path / "audio" / "deep", tmp_path / "alias"])
    assert names(found[""]) == ["2.wav"]
    linked, _ = scan([tmp_path / "alias"])
    assert len(linked[""].entries) == 1


def test_only_a_check_finds_what_a_header_hides(tmp_path):
    put(tmp_path / "good.wav")
    data = sine(0.5)
    data[5] = np.nan
    soundfile.write(tmp_path / "nan.wav", data, 16_000, subtype="FLOAT")
    assert names(scan([tmp_path])[0][""]) == ["good.wav", "nan.wav"]
    found, skipped = scan([tmp_path], check=True)
    assert names(found[""]) == ["good.wav"]
    assert skipped == [Skipped(str(tmp_path / "nan.wav"), "non-finite samples")]


def test_min_seconds_is_the_shortest_allowed(tmp_path):
    put(tmp_path / "a.wav", 0.5)
    put(tmp_path / "b.wav", 0.499)
    found, skipped = scan([tmp_path], min_seconds=0.5)
    assert names(found[""]) == ["a.wav"]
    assert [bad.reason for bad in skipped] == ["too short (0.499 s)"]


def test_odd_names_survive_and_impossible_ones_are_skipped(tmp_path):
    for name in ("ä b.wav", "line\u2028sep\x85.wav", "tab\tend\n.wav"):
        put(tmp_path / "audio" / name)
    os.link(tmp_path / "audio" / "ä b.wav", os.fsencode(tmp_path / "audio") + b"/\xff.wav")
    found, skipped = scan([tmp_path / "audio"])
    assert len(found[""].entries) == 2
    assert len(skipped) == 2
    assert all("its name holds a tab" in bad.reason for bad in skipped)
    write(tmp_path / "x.tsv", found, skipped)
    assert Manifest.load(tmp_path / "x.tsv") == found[""]
    rows = (tmp_path / "x.skipped.tsv").read_text(encoding="utf8").splitlines()
    assert rows[0] == "path\treason"
    assert [row.count("\t") for row in rows] == [1, 1, 1]


def test_a_scan_tells_its_progress(tmp_path, capsys):
    put(tmp_path / "a.wav")
    scan([tmp_path])
    shown = capsys.readouterr()
    assert not shown.out
    assert "1/1" in shown.err
    assert "file/s" in shown.err


@pytest.mark.parametrize("name", ["", "skipped", "a/b", "a.b", "../x"])
def test_split_names_are_checked(tmp_path, name):
    put(tmp_path / "a.wav")
    with pytest.raises(DataError, match=r"split is .* allowed: letters"):
        scan([tmp_path], splits={name: "*"})


def test_the_first_glob_takes_a_file(tmp_path):
    for name in ("dev/a.wav", "dev/b.wav", "train/a.wav", "train/c.wav"):
        put(tmp_path / name)
    found, _ = scan([tmp_path], splits={"valid": "*/dev/*", "test": "*/a.wav"})
    assert {name: names(manifest) for name, manifest in found.items()} == {
        "valid": ["a.wav", "b.wav"],
        "test": ["a.wav"],
        "": ["c.wav"],
    }


def test_write_is_all_or_nothing(tmp_path):
    put(tmp_path / "audio" / "a.wav")
    put(tmp_path / "audio" / "b.wav")
    found, skipped = scan([tmp_path / "audio"], splits={"valid": "*b.wav"})
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.valid.tsv").write_bytes(b"\xff mine")
    with pytest.raises(DataError, match=r"x\.valid\.tsv: exists already"):
        write(out / "x.tsv", found, skipped)
    assert os.listdir(out) == ["x.valid.tsv"]
    assert "1 files, 0.0 min" in write(out / "x.tsv", found, skipped, overwrite=True)
    assert sorted(os.listdir(out)) == ["x.skipped.tsv", "x.tsv", "x.valid.tsv"]
    assert (out / "x.skipped.tsv").read_text() == "path\treason\n"


def test_save_keeps_what_is_there_when_it_fails(tmp_path, monkeypatch):
    old, new = Manifest((Entry("/a.wav", 5),)), Manifest((Entry("/b.wav", 6),))
    path = tmp_path / "x.tsv"
    old.save(path)
    old.save(path)  # the same again is no harm
    with pytest.raises(DataError, match="exists already with other content"):
        new.save(path)

    def full(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(DataError, match=r"x\.tsv: cannot be written \(disk full\)"):
            new.save(path, overwrite=True)
    assert os.listdir(tmp_path) == ["x.tsv"]
    assert Manifest.load(path) == old
    new.save(path, overwrite=True)
    assert Manifest.load(path) == new
    with pytest.raises(DataError, match="cannot be written"):
        new.save(tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1 is ''"),
        (b"path,samples\n", "line 1"),
        (b"path\tsamples\n", "lists no audio"),
        (b"path\tsamples\n/a.wav\t5\n\n", "line 3 is ''"),
        (b"path\tsamples\n/a.wav\t0\n", "line 2"),
        (b"path\tsamples\n/a.wav\t" + b"9" * 5000 + b"\n", "line 2"),
        (b"path\tsamples\n\t5\n", "line 2"),
        (b"\xff\xfe", "not readable as a manifest"),
    ],
)
def test_a_malformed_manifest_names_file_and_line(tmp_path, data, message):
    path = tmp_path / "x.tsv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        Manifest.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_manifest_and_windows_line_ends(tmp_path):
    with pytest.raises(DataError, match=r"gone\.tsv: not readable as a manifest"):
        Manifest.load(tmp_path / "gone.tsv")
    (tmp_path / "x.tsv").write_bytes(b"path\tsamples\r\n/a.wav\t5\r\n")
    assert Manifest.load(tmp_path / "x.tsv").entries == (Entry("/a.wav", 5),)


def test_check_headers_counts_against_the_fraction(tmp_path):
    good = [Entry(str(put(tmp_path / f"{i}.wav")), 8000) for i in range(3)]
    manifest = Manifest((*good, Entry(str(tmp_path / "gone.wav"), 8000)))
    assert [bad.path for bad in check_headers(manifest, 0.25)] == [str(tmp_path / "gone.wav")]
    with pytest.raises(DataError, match=r"1 of 4 files are bad, allowed: 24%; .*gone\.wav: unreadable"):
        check_headers(manifest, 0.24)
    assert check_headers(Manifest(tuple(good)), 0.0) == []
