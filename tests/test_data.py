"""Audio, manifests and batches: what is read, what is skipped and why, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from s3prl_dphubert.data.audio import probe, read
from s3prl_dphubert.data.batches import BatchConfig, BatchStream, loader, validation_batches
from s3prl_dphubert.data.manifest import Entry, Manifest, check_headers, scan, write
from s3prl_dphubert.errors import ConfigError, DataError

FORMATS = {"wav": {}, "flac": {}, "ogg": {"format": "OGG", "subtype": "OPUS"}, "mp3": {"format": "MP3"}}


def tone(seconds, rate=16_000, hertz=440.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "audio"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index, seconds in enumerate(random.uniform(0.5, 4.0, 24)):
        soundfile.write(folder / f"{index:02d}.wav", tone(seconds, hertz=200 + 50 * index), 16_000)
    return folder


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_formats_are_read_as_16_khz_mono(tmp_path, suffix, rate):
    path = tmp_path / f"a.{suffix}"
    stereo = np.stack([tone(1.0, rate), np.zeros(rate, np.float32)], axis=1)
    soundfile.write(path, stereo, rate, **FORMATS[suffix])
    info = probe(path)
    assert info.channels == 2
    audio = read(path)
    assert audio.dtype == np.float32
    assert abs(len(audio) - 16_000) <= (2500 if suffix == "mp3" else 1)
    assert abs(info.samples_16k - len(audio)) <= 1
    spectrum = np.abs(np.fft.rfft(audio))
    assert np.argmax(spectrum) * 16_000 / len(audio) == pytest.approx(440, abs=2)
    assert np.sqrt(np.mean(audio**2)) == pytest.approx(0.15 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("rate", [16_000, 8_000])
def test_a_crop_equals_the_same_part_of_the_whole(tmp_path, rate):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(2.0, rate), rate)
    whole = read(path)
    assert np.allclose(read(path, 4000, 8000), whole[4000:12_000], atol=1e-6)
    assert len(read(path, 30_000, 8000)) == 2000


def damaged(folder):
    good = folder / "good.wav"
    soundfile.write(good, tone(1.0), 16_000)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "noise.flac").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "header.ogg").write_bytes(b"OggS" + bytes(40))
    soundfile.write(folder / "nosamples.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(folder / "short.wav", tone(0.02), 16_000)
    nan = tone(1.0)
    nan[100] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16_000, subtype="FLOAT")
    return good


def test_bad_files_are_listed_with_their_reason(tmp_path):
    good = damaged(tmp_path)
    found, skipped = scan([tmp_path], check=True)
    assert [entry.path for entry in found[""].entries] == [str(good)]
    reasons = {bad.path.rsplit("/", 1)[1]: bad.reason for bad in skipped}
    assert set(reasons) == {"empty.wav", "noise.flac", "header.ogg", "nosamples.wav", "short.wav", "nan.wav"}
    assert reasons["short.wav"] == "too short (0.020 s)"
    assert reasons["nan.wav"] == "non-finite samples"
    assert reasons["nosamples.wav"] == "empty"
    assert all(reasons[name].startswith("unreadable") for name in ("empty.wav", "noise.flac", "header.ogg"))
    out = tmp_path / "x.tsv"
    assert "6 files skipped" in write(out, found, skipped)
    assert len((tmp_path / "x.skipped.tsv").read_text().splitlines()) == 7


def test_splits_sorting_and_round_trip(corpus, tmp_path):
    found, skipped = scan([corpus, corpus], splits={"valid": "*[05].wav"})
    assert not skipped
    assert len(found["valid"].entries) == 5
    assert len(found[""].entries) == 19
    paths = [entry.path for entry in found[""].entries]
    assert paths == sorted(paths)
    out = tmp_path / "data" / "x.tsv"
    write(out, found, skipped)
    assert Manifest.load(out) == found[""]
    assert Manifest.load(tmp_path / "data" / "x.valid.tsv") == found["valid"]
    write(out, found, skipped)  # the same again is no harm
    with pytest.raises(DataError, match="exists already"):
        found["valid"].save(out)


def test_scan_refuses_what_holds_no_audio(tmp_path, corpus):
    with pytest.raises(DataError, match="no such folder"):
        scan([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no audio"):
        scan([tmp_path / "empty"])
    with pytest.raises(DataError, match="split valid: the glob"):
        scan([corpus], splits={"valid": "*.mp3"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ("a\tb\n", "line 1"),
        ("path\tsamples\nx.wav 5\n", "line 2"),
        ("path\tsamples\nx.wav\t5\ny.wav\t-1\n", "line 3"),
        ("path\tsamples\n", "lists no audio"),
    ],
)
def test_malformed_manifests(tmp_path, text, message):
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        Manifest.load(tmp_path / "x.tsv")


def test_too_many_bad_files_stop_a_run(tmp_path):
    good = damaged(tmp_path)
    manifest = Manifest((Entry(str(good), 16_000), Entry(str(tmp_path / "empty.wav"), 16_000)))
    assert len(check_headers(manifest, 0.5)) == 1
    with pytest.raises(DataError, match=r"1 of 2 files are bad, allowed: 10%.*empty\.wav"):
        check_headers(manifest, 0.1)


@pytest.fixture
def stream(corpus):
    config = BatchConfig(seconds_per_batch=8.0, min_seconds=0.6, max_seconds=3.0, buckets=4, seed=5)
    return BatchStream(scan([corpus])[0][""], config)


def test_every_utterance_once_an_epoch(stream):
    first, second = stream.plan(0), stream.plan(1)
    for plan in (first, second):
        assert sorted(i for batch in plan for i in batch) == list(range(len(stream.entries)))
        assert all(len(b) * max(stream.lengths[i] for i in b) <= 8 * 16_000 or len(b) == 1 for b in plan)
    assert first != second
    assert stream.members(len(first)) == second[0]


def test_batches_are_cropped_to_the_shortest(stream):
    for index in range(len(stream.plan(0))):
        batch = stream[index]
        shortest = min(stream.lengths[i] for i in stream.members(index))
        assert batch.waveforms.shape == (len(batch.paths), shortest)
        assert batch.lengths.tolist() == [shortest] * len(batch.paths)
        assert batch.waveforms.abs().amax(1).min() > 0.2


def test_batches_do_not_depend_on_history_or_workers(stream, corpus):
    alone = BatchStream(scan([corpus])[0][""], stream.config)
    last = alone[11]
    for workers in (0, 2):
        batches = list(loader(stream, 0, 12, workers))
        assert len(batches) == 12
        assert torch.equal(batches[11].waveforms, last.waveforms)
        assert batches[11].paths == last.paths
    halves = [list(loader(stream, 0, 12, 0, stride=2, offset=rank)) for rank in (0, 1)]
    assert [halves[i % 2][i // 2].paths for i in range(12)] == [batch.paths for batch in batches]


def test_a_file_that_breaks_later_is_left_out(stream):
    whole = stream[0]
    index = next(i for i in range(9) if len(stream.members(i)) > 1)
    victim = stream.entries[stream.members(index)[0]].path
    with open(victim, "wb") as file:
        file.write(b"gone")
    batch = stream[index]
    assert victim not in batch.paths
    assert [bad.path for bad in batch.failed] == [victim]
    for i in stream.members(index):
        with open(stream.entries[i].path, "wb") as file:
            file.write(b"gone")
    with pytest.raises(DataError, match="no file of a batch can be read"):
        stream[index]
    assert whole.waveforms.ndim == 2


def test_validation_is_the_same_every_time(stream, corpus):
    manifest = scan([corpus])[0][""]
    a, b = (validation_batches(manifest, stream.config, 3) for _ in range(2))
    assert len(a) == 3
    assert all(torch.equal(x.waveforms, y.waveforms) for x, y in zip(a, b, strict=True))


def test_batch_configuration_names_every_fault():
    with pytest.raises(ConfigError) as caught:
        BatchConfig(min_seconds=0, max_seconds=-1, buckets=0)
    for part in ("min_seconds is 0", "max_seconds is -1", "buckets is 0"):
        assert part in str(caught.value)


def test_nothing_long_enough(corpus):
    with pytest.raises(DataError, match="no utterance lasts 9 s"):
        BatchStream(scan([corpus])[0][""], BatchConfig(min_seconds=9.0))
