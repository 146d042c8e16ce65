"""Tar shards: the same manifest interface, one ranged read an utterance, and what is refused."""

from __future__ import annotations

import gzip
import os
import re
import tarfile

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from s3prl_dphubert.data import remote_files
from s3prl_dphubert.data.audio import read
from s3prl_dphubert.data.batches import BatchConfig, BatchStream, loader
from s3prl_dphubert.data.manifest import Entry, Manifest, check_headers, scan, write
from s3prl_dphubert.data.shards import Member
from s3prl_dphubert.errors import DataError
from tests.helpers.speech import FORMATS, chirp, encoded, pack

CONFIG = BatchConfig(seconds_per_batch=4.0, min_seconds=0.3, max_seconds=1.0, buckets=3)
MADE = {suffix: encoded(chirp(0.5), suffix) for suffix in FORMATS}


def utterances(count, first=0):
    """Members as a WebDataset has them: audio beside its text; lengths and contents differ."""
    files = {}
    for index in range(first, first + count):
        files[f"{index:03d}.flac"] = encoded(chirp(0.5 + 0.05 * index), "flac")
        files[f"{index:03d}.txt"] = b"some words\n"
    return files


def names(manifest):
    return [Member.parse(entry.path).name for entry in manifest.entries]


@pytest.fixture
def bucket():
    """An object store in memory; name -> bytes put into it."""
    files = fsspec.filesystem("memory")

    def put(name, members):
        with files.open(f"/bucket/{name}", "wb") as file:
            pack(file, members)

    yield put
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_members_are_read_like_files(tmp_path):
    pack(tmp_path / "a.tar", {f"x/1.{suffix}": data for suffix, data in MADE.items()} | {"x/1.json": b"{}"})
    manifests, skipped = scan([tmp_path / "a.tar"])
    assert not skipped
    assert names(manifests[""]) == [f"x/1.{suffix}" for suffix in MADE]
    for entry, (suffix, data) in zip(manifests[""].entries, MADE.items(), strict=True):
        (tmp_path / f"1.{suffix}").write_bytes(data)
        whole = read(tmp_path / f"1.{suffix}")
        assert entry.samples == len(whole)
        assert np.array_equal(read(entry.path), whole)
        assert np.array_equal(read(entry.path, 3000, 1000), read(tmp_path / f"1.{suffix}", 3000, 1000))
    assert scan([tmp_path / "a.tar"], check=True)[0] == manifests


def test_the_path_of_a_member_tells_its_place(tmp_path):
    shard = pack(tmp_path / "a.tar", utterances(2))
    paths = [entry.path for entry in scan([shard])[0][""].entries]
    size = len(utterances(1)["000.flac"])
    assert paths[0] == f"{shard}#512+{size}/000.flac"
    assert Member.parse(paths[0]) == Member(str(shard), 512, size, "000.flac")
    assert str(Member.parse(paths[1])) == paths[1]
    for ordinary in ("/a.tar", "/a.tar/1.wav", "/a.tar#1/1.wav", "/a.wav#1+2/1.wav", "/a.tar#1+2/"):
        assert Member.parse(ordinary) is None


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_every_tar_format_with_long_and_foreign_names(tmp_path, kind):
    wanted = ["./1.wav", "ä/б.wav", "d" * 60 + "/" + "e" * 80 + ".wav"]
    if kind != tarfile.USTAR_FORMAT:
        wanted.append("f" * 300 + ".wav")
    pack(tmp_path / "a.tar", dict.fromkeys(wanted, MADE["wav"]), format=kind)
    manifests, skipped = scan([tmp_path])
    assert not skipped
    assert names(manifests[""]) == wanted
    assert all(len(read(entry.path)) == 8000 for entry in manifests[""].entries)


def test_folders_globs_and_braces_of_shards(tmp_path):
    for shard in range(8, 12):
        pack(tmp_path / f"train-{shard:03d}.tar", utterances(2, 2 * shard))
    (tmp_path / "1.wav").write_bytes(MADE["wav"])
    for source, expected in (
        (tmp_path / "train-{008..009}.tar", range(16, 20)),
        (tmp_path / "train-00*.tar", range(16, 20)),
        (f"file://{tmp_path}/train-{{011..010}}.tar", range(20, 24)),
    ):
        assert names(scan([source])[0][""]) == [f"{index:03d}.flac" for index in expected]
    assert len(scan([tmp_path])[0][""].entries) == 9
    assert len(scan([tmp_path, tmp_path / "train-*.tar"])[0][""].entries) == 9
    with pytest.raises(DataError, match=r"train-012\.tar: no such folder or file"):
        scan([tmp_path / "train-{008..012}.tar"])


def test_splits_choose_by_member_or_shard(tmp_path):
    speech = ("train-clean-100/19/1.flac", "dev-clean/84/1.flac", "dev-other/7/1.flac")
    pack(tmp_path / "a.tar", dict.fromkeys(speech, MADE["flac"]))
    pack(tmp_path / "b.tar", {"1.wav": MADE["wav"]})
    manifests, _ = scan(
        [tmp_path], splits={"valid": "{dev-clean,dev-other}", "b": "*/b.tar#*", "w": "*.flac"}
    )
    assert {name: names(manifest) for name, manifest in manifests.items()} == {
        "valid": [*speech[1:]],
        "b": ["1.wav"],
        "w": [speech[0]],
    }


def test_a_store_behind_a_url_is_read_by_ranges(bucket, monkeypatch, tmp_path):
    bucket("train-000.tar", utterances(3))
    bucket("train-001.tar", utterances(2, 3))
    bucket("deep/other.tar", utterances(1, 5))
    root = "memory://bucket"
    both = scan([f"{root}/train-{{000..001}}.tar"])[0][""]
    assert names(both) == [f"{index:03d}.flac" for index in range(5)]
    assert names(scan([f"{root}/train-*.tar"])[0][""]) == names(both)
    assert len(scan([root])[0][""].entries) == 6
    write(tmp_path / "x.tsv", {"": both}, [])
    assert Manifest.load(tmp_path / "x.tsv") == both
    asked = []
    fetch = MemoryFileSystem.cat_file

    def counting(self, path, start=None, end=None, **options):
        asked.append((path, start, end))
        return fetch(self, path, start=start, end=end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counting)
    member = Member.parse(both.entries[2].path)
    assert np.abs(read(both.entries[2].path) - chirp(0.6)).max() < 1e-3
    assert asked == [("/bucket/train-000.tar", member.offset - 512, member.offset + member.size)]


def test_a_loose_file_behind_a_url(bucket):
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/x/1.ogg", MADE["ogg"])
    manifests, _ = scan(["memory://bucket/x"])
    assert [entry.path for entry in manifests[""].entries] == ["memory:///bucket/x/1.ogg"]
    assert len(read(manifests[""].entries[0].path)) == 8000
    assert check_headers(manifests[""], 0.0) == []


@pytest.mark.parametrize("url", ["nope://bucket/a.tar", "memory://bucket/gone.tar"])
def test_what_cannot_be_reached_is_a_clear_error(url):
    with pytest.raises(DataError, match=r"none of 1 files can be used, the first: .*: unreadable"):
        scan([url])
    with pytest.raises(DataError, match=r"1\.wav: unreadable"):
        read(f"{url}#512+100/1.wav")
    with pytest.raises(DataError, match=r"nope://bucket/\*: unreadable \(Protocol not known: nope\)"):
        scan(["nope://bucket/*"])


def test_compressed_shards_are_refused(tmp_path):
    shard = pack(tmp_path / "a.tar", utterances(1))
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "a.tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
    for source in (packed, packed / "a.tar.gz"):
        with pytest.raises(DataError, match=r"a\.tar\.gz: compressed shards have no random access"):
            scan([source])
    (tmp_path / "b.tar").write_bytes(gzip.compress(shard.read_bytes()))
    manifests, skipped = scan([tmp_path])  # the .tar.gz is beside what can be used, and left alone
    assert len(manifests[""].entries) == 1
    assert [(bad.path, bad.reason) for bad in skipped] == [
        (f"{tmp_path}/b.tar", "is compressed (gzip), which has no random access; uncompress it")
    ]


def test_bad_members_are_listed_and_the_good_ones_used(tmp_path):
    wav = MADE["wav"]
    pack(
        tmp_path / "a.tar",
        {"1.wav": wav, "2.wav": b"RIFF", "3.wav": encoded(chirp(0.05), "wav"), "4.wav": wav},
    )
    manifests, skipped = scan([tmp_path])
    assert names(manifests[""]) == ["1.wav", "4.wav"]
    assert [Member.parse(bad.path).name for bad in skipped] == ["2.wav", "3.wav"]
    assert [bad.reason.split(" (")[0] for bad in skipped] == ["unreadable", "too short"]


STEP = 512 + -(-len(MADE["wav"]) // 512) * 512  # bytes of a member with its header


@pytest.mark.parametrize(
    ("damage", "reason", "good"),
    [
        (lambda whole: whole[:5000], r"cut off in 1\.wav", 0),
        (lambda whole: whole[: 2 * STEP + 5000], r"cut off in 3\.wav", 2),
        (lambda whole: whole[: 2 * STEP], f"damaged or cut off after {2 * STEP} of {2 * STEP} bytes", 2),
        (lambda whole: whole[: 2 * STEP + 100], f"damaged or cut off after {2 * STEP} of", 2),
        (
            lambda whole: whole[:STEP] + b"x" * 512 + whole[STEP + 512 :],
            f"damaged or cut off after {STEP} of",
            1,
        ),
        (lambda whole: whole.replace(b".wav", b".txt"), "unreadable|damaged", 0),
        (lambda whole: b"", "unreadable", 0),
    ],
    ids=["first", "third", "between", "header", "middle", "checksum", "empty"],
)
def test_of_a_damaged_shard_what_comes_before_is_used(tmp_path, damage, reason, good):
    whole = pack(tmp_path / "a.tar", {f"{i}.wav": MADE["wav"] for i in (1, 2, 3)})
    (tmp_path / "b.tar").write_bytes(damage(whole.read_bytes()))
    manifests, skipped = scan([tmp_path])
    assert names(manifests[""]) == ["1.wav", "2.wav", "3.wav", "1.wav", "2.wav"][: 3 + good]
    assert [bad.path for bad in skipped] == [f"{tmp_path}/b.tar"]
    assert re.match(reason, skipped[0].reason)


def test_a_shard_without_audio_and_links_in_it(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("1.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "2.wav"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("2.txt"))
    with pytest.raises(DataError, match=r"the first: .*a\.tar: holds no audio, searched for \.flac"):
        scan([tmp_path])


def test_a_shard_that_changes_later_is_a_clear_error(tmp_path):
    wav = MADE["wav"]
    shard = pack(tmp_path / "a.tar", {"1.wav": wav, "2.wav": wav})
    first, second = (entry.path for entry in scan([shard])[0][""].entries)
    whole = shard.read_bytes()
    for content, path, reason in (
        (whole[:3000], first, "the shard is cut off after 2488 bytes of it"),
        (whole[:3000], second, "the shard has changed, no member begins there"),
        (b"", second, "the shard has changed, no member begins there"),
        (whole[512:], first, "the shard has changed, no member begins there"),
        (pack(tmp_path / "b.tar", {"3.wav": wav}).read_bytes(), first, "it holds 3.wav of 16044 bytes there"),
        (pack(tmp_path / "b.tar", {"1.wav": wav[:99]}).read_bytes(), first, "it holds 1.wav of 99 bytes"),
    ):
        shard.write_bytes(content)
        with pytest.raises(DataError, match=re.escape(reason)) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
    shard.unlink()
    with pytest.raises(DataError, match=r"1\.wav: unreadable \(.*No such file"):
        read(first)
    for place in ("0+10", "100+10", "512+999999999999999"):
        with pytest.raises(DataError, match=r"1\.wav: "):
            read(f"{tmp_path}/b.tar#{place}/1.wav")


def test_a_run_begins_with_a_look_at_each_shard(tmp_path, monkeypatch):
    shard, other = (pack(tmp_path / f"{name}.tar", utterances(3)) for name in "ab")
    manifest = scan([shard, other])[0][""]
    asked = []
    length = remote_files.length
    monkeypatch.setattr(remote_files, "length", lambda path: asked.append(path) or length(path))
    monkeypatch.setattr(remote_files, "fetch", None)
    assert check_headers(manifest, 0.0) == []
    assert asked == [str(shard), str(other)]
    shard.write_bytes(shard.read_bytes()[:2000])
    other.unlink()
    bad = check_headers(manifest, 1.0)
    assert [item.path for item in bad] == [entry.path for entry in manifest.entries]
    assert bad[0].reason == "the shard is cut off, it has 2000 bytes"
    assert all("No such file" in item.reason for item in bad[3:])


def test_a_file_that_looks_like_a_place_in_a_shard_is_skipped(tmp_path):
    odd = tmp_path / "a.tar#512+100" / "1.wav"
    odd.parent.mkdir()
    for path in (odd, tmp_path / "2.wav"):
        path.write_bytes(MADE["wav"])
    manifests, skipped = scan([tmp_path])
    assert [entry.path for entry in manifests[""].entries] == [str(tmp_path / "2.wav")]
    assert [bad.reason for bad in skipped] == ["its name looks like a place inside a shard; rename it"]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_shards_like_the_process_itself(tmp_path, start):
    folder = tmp_path / "loose"
    folder.mkdir()
    for name, data in utterances(12).items():
        (folder / name).write_bytes(data)
    shards = [pack(tmp_path / f"{i}.tar", utterances(4, 4 * i)) for i in range(3)]
    loose, packed = (BatchStream(scan(source)[0][""], CONFIG) for source in ([folder], shards))
    stop = len(packed.plan(0)) + 2
    wanted = [packed[index] for index in range(stop)]  # opened here before the workers begin
    feed = loader(packed, 0, stop, 2)
    feed.multiprocessing_context = start
    batches = list(feed)
    assert len(batches) == stop
    for index, (batch, other) in enumerate(zip(batches, wanted, strict=True)):
        assert not batch.failed
        assert batch.paths == other.paths
        assert torch.equal(batch.waveforms, other.waveforms)
        assert torch.equal(batch.waveforms, loose[index].waveforms)


def test_a_lost_shard_is_left_out_of_a_batch(tmp_path):
    shard = pack(tmp_path / "a.tar", utterances(4))
    (tmp_path / "1.wav").write_bytes(MADE["wav"])
    stream = BatchStream(scan([tmp_path])[0][""], BatchConfig(60.0, 0.3, 1.0, 1))
    os.unlink(shard)
    batch = stream[0]
    assert batch.paths == (str(tmp_path / "1.wav"),)
    assert len(batch.failed) == 4
    assert Entry(batch.failed[0].path, 8000 + 800 * int(batch.failed[0].path[-8:-5])) in stream.entries
