"""Manifests: what a scan finds, skips and writes, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile

from s3prl_dphubert.data.manifest import Entry, Manifest, Skipped, check_headers, scan, write
from s3prl_dphubert.data.sources import expand
from s3prl_dphubert.errors import DataError
from tests.helpers.speech import FORMATS, tone


def put(path, seconds=0.5, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, rate), rate, **FORMATS[path.suffix[1:].lower()])
    return path


def names(manifest):
    return [os.path.basename(entry.path) for entry in manifest.entries]


def test_scan_recurses_and_counts_at_16_khz(tmp_path, monkeypatch):
    for name in ("b/c/2.FLAC", "b/1.wav", "3.ogg", "4.Opus", "5.mp3"):
        put(tmp_path / "audio" / name)
    put(tmp_path / "audio" / "0.wav", 2.0, 44_100)
    (tmp_path / "audio" / "notes.txt").write_text("no audio")
    monkeypatch.chdir(tmp_path)
    manifests, skipped = scan(["audio"])
    assert set(manifests) == {""}
    assert not skipped
    paths = [entry.path for entry in manifests[""].entries]
    assert all(os.path.isabs(path) for path in paths)
    assert paths == sorted(paths)
    assert names(manifests[""]) == ["0.wav", "3.ogg", "4.Opus", "5.mp3", "1.wav", "2.FLAC"]
    assert manifests[""].entries[0].samples == 32_000
    assert manifests[""].seconds == pytest.approx(4.5, abs=0.2)


def test_a_file_found_twice_is_listed_once(tmp_path):
    put(tmp_path / "audio" / "deep" / "1.wav")
    (tmp_path / "audio" / "deep" / "loop").symlink_to(tmp_path / "audio")
    (tmp_path / "audio" / "2.wav").symlink_to(tmp_path / "audio" / "deep" / "1.wav")
    (tmp_path / "alias").symlink_to(tmp_path / "audio")
    manifests, _ = scan([tmp_path / "audio", tmp_path / "audio" / "deep", tmp_path / "alias"])
    assert names(manifests[""]) == ["2.wav"]
    linked, _ = scan([tmp_path / "alias"])
    assert len(linked[""].entries) == 1


def test_only_a_check_finds_what_a_header_hides(tmp_path):
    put(tmp_path / "good.wav")
    data = tone(0.5)
    data[5] = np.nan
    soundfile.write(tmp_path / "nan.wav", data, 16_000, subtype="FLOAT")
    assert names(scan([tmp_path])[0][""]) == ["good.wav", "nan.wav"]
    manifests, skipped = scan([tmp_path], check=True)
    assert names(manifests[""]) == ["good.wav"]
    assert skipped == [Skipped(str(tmp_path / "nan.wav"), "non-finite samples")]


def test_bad_files_are_listed_with_their_reason(tmp_path):
    good, short, nan = put(tmp_path / "good.wav"), put(tmp_path / "short.wav", 0.02), tone(0.5)
    nan[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", nan, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "nosamples.wav", np.zeros(0, np.float32), 16_000)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "noise.flac").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "header.ogg").write_bytes(b"OggS" + bytes(40))
    manifests, skipped = scan([tmp_path], check=True)
    assert [entry.path for entry in manifests[""].entries] == [str(good)]
    reasons = {os.path.basename(bad.path): bad.reason for bad in skipped}
    assert reasons.pop(short.name) == "too short (0.020 s)"
    assert reasons.pop("nan.wav") == "non-finite samples"
    assert reasons.pop("nosamples.wav") == "empty"
    assert sorted(reasons) == ["empty.wav", "header.ogg", "noise.flac"]
    assert all(reason.startswith("unreadable") for reason in reasons.values())
    assert "6 files skipped" in write(tmp_path / "x.tsv", manifests, skipped)
    assert len((tmp_path / "x.skipped.tsv").read_text().splitlines()) == 7
    good.unlink()
    with pytest.raises(DataError, match=r"none of 6 files can be used, the first: .*empty\.wav: unreadable"):
        scan([tmp_path], check=True)


def test_scan_refuses_what_holds_no_audio(tmp_path):
    put(tmp_path / "audio" / "a.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing: no such folder"):
        scan([tmp_path / "nothing"])
    with pytest.raises(DataError, match=r"empty: holds no audio, searched for \.flac"):
        scan([tmp_path / "audio", tmp_path / "empty"])
    with pytest.raises(DataError, match=r"split valid: the glob '\*\.mp3' matches no usable file"):
        scan([tmp_path / "audio"], splits={"valid": "*.mp3"})


def test_files_globs_and_braces_name_audio_too(tmp_path):
    paths = [put(tmp_path / name / "a.wav") for name in ("x-08", "x-09", "x-10", "y")]
    for sources, expected in (
        ([paths[3]], paths[3:]),
        ([f"{tmp_path}/x-*"], paths[:3]),
        ([f"{tmp_path}/**/a.w?v"], paths),
        ([tmp_path / "x-{08..10}"], paths[:3]),
        ([tmp_path / "{y,x-{09,10}}" / "a.wav"], paths[1:]),
        ([f"file://{tmp_path}/y"], paths[3:]),
    ):
        assert [entry.path for entry in scan(sources)[0][""].entries] == [str(path) for path in expected]
    with pytest.raises(DataError, match="x-11: no such folder"):
        scan([tmp_path / "x-{08..11}"])
    odd = put(tmp_path / "{y,z}[1]" / "a.wav")  # a name that exists is no pattern
    assert [entry.path for entry in scan([odd.parent])[0][""].entries] == [str(odd)]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("a{}", ["a"]),
        ("{1..3}", ["1", "2", "3"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("{a,b", ["{a,b"]),
    ],
)
def test_braces_are_those_of_a_shell(pattern, names):
    assert expand(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..999999999}", "{0..999}{0..999}"])
def test_braces_do_not_fill_the_memory(pattern):
    with pytest.raises(DataError, match="stands for too many names, allowed: 100000"):
        expand(pattern)


def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    for name in ("b/2.wav", "b/1.wav", "a/3.wav", "c.wav"):
        put(tmp_path / name)
    os.link(tmp_path / "c.wav", tmp_path / "d.wav")
    (tmp_path / "0.wav").symlink_to(tmp_path / "c.wav")
    expected = scan([tmp_path])[0]
    walk = os.walk

    def backwards(*args, **options):
        for root, folders, files in walk(*args, **options):
            folders.sort(reverse=True)
            yield root, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert scan([tmp_path])[0] == expected
    assert scan([tmp_path / "b", tmp_path, tmp_path / "a"])[0] == expected


def test_a_folder_of_librispeech_makes_a_split(tmp_path):
    root = tmp_path / "LibriSpeech"
    for name in ("train-clean-100/19/198/19-198-0000", "dev-clean/84/1/84-1-0000", "dev-other/7/8/7-8-0000"):
        put(root / f"{name}.flac")
    manifests, _ = scan([root], splits={"valid": "dev-clean", "other": "LibriSpeech/dev-other/"})
    assert {name: names(manifest) for name, manifest in manifests.items()} == {
        "valid": ["84-1-0000.flac"],
        "other": ["7-8-0000.flac"],
        "": ["19-198-0000.flac"],
    }
    manifests, _ = scan([root], splits={"valid": "{dev-clean,dev-other}"})
    assert len(manifests["valid"].entries) == 2
    with pytest.raises(DataError, match="'dev' matches no usable file"):
        scan([root], splits={"valid": "dev"})


def test_min_seconds_is_the_shortest_allowed(tmp_path):
    put(tmp_path / "a.wav", 0.5)
    put(tmp_path / "b.wav", 0.499)
    manifests, skipped = scan([tmp_path], min_seconds=0.5)
    assert names(manifests[""]) == ["a.wav"]
    assert [bad.reason for bad in skipped] == ["too short (0.499 s)"]


def test_odd_names_survive_and_impossible_ones_are_skipped(tmp_path):
    for name in ("ä b.wav", "line\u2028sep\x85.wav", "tab\tend\n.wav"):
        put(tmp_path / "audio" / name)
    os.link(tmp_path / "audio" / "ä b.wav", os.fsencode(tmp_path / "audio") + b"/\xff.wav")
    manifests, skipped = scan([tmp_path / "audio"])
    assert len(manifests[""].entries) == 2
    assert len(skipped) == 2
    assert all("its name holds a tab" in bad.reason for bad in skipped)
    write(tmp_path / "x.tsv", manifests, skipped)
    assert Manifest.load(tmp_path / "x.tsv") == manifests[""]
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
    manifests, _ = scan([tmp_path], splits={"valid": "*/dev/*", "test": "*/a.wav"})
    assert {name: names(manifest) for name, manifest in manifests.items()} == {
        "valid": ["a.wav", "b.wav"],
        "test": ["a.wav"],
        "": ["c.wav"],
    }


def test_write_is_all_or_nothing(tmp_path):
    put(tmp_path / "audio" / "a.wav")
    put(tmp_path / "audio" / "b.wav")
    manifests, skipped = scan([tmp_path / "audio"], splits={"valid": "*b.wav"})
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.valid.tsv").write_bytes(b"\xff mine")
    with pytest.raises(DataError, match=r"x\.valid\.tsv: exists already"):
        write(out / "x.tsv", manifests, skipped)
    assert os.listdir(out) == ["x.valid.tsv"]
    assert "1 files, 0.0 min" in write(out / "x.tsv", manifests, skipped, overwrite=True)
    assert sorted(os.listdir(out)) == ["x.skipped.tsv", "x.tsv", "x.valid.tsv"]
    assert (out / "x.skipped.tsv").read_text() == "path\treason\n"
    assert Manifest.load(out / "x.tsv") == manifests[""]
    assert Manifest.load(out / "x.valid.tsv") == manifests["valid"]
    write(out / "x.tsv", manifests, skipped)  # the same again is no harm


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
        (b"path\tsamples\n/a.wav 5\n", "line 2"),
        (b"path\tsamples\n/a.wav\t5\n/b.wav\t-1\n", "line 3"),
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
