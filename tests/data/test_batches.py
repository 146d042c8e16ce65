"""Batches: once an epoch, within the budget, and the same whatever process asks in which order."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from s3prl_dphubert.cli.machine_trouble import describe
from s3prl_dphubert.data import batches
from s3prl_dphubert.data.batches import BatchConfig, BatchStream, epoch_share, loader, validation_batches
from s3prl_dphubert.data.dataset import DataConfig, read_data
from s3prl_dphubert.data.manifest import Entry, Manifest, scan
from s3prl_dphubert.errors import ConfigError, DataError
from tests.helpers.speech import tone

CONFIG = BatchConfig(seconds_per_batch=4.0, min_seconds=0.3, max_seconds=1.0, buckets=3, seed=7)
UNCUT = replace(CONFIG, max_seconds=1.5)  # every file of the manifest below is one segment


@pytest.fixture
def manifest(tmp_path):
    """20 files of 0.2 to 1.4 s; a ramp from 0 to 1, so that a sample's value tells its place."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for index, seconds in enumerate(np.linspace(0.2, 1.4, 20)):
        ramp = np.linspace(0, 1, int(seconds * 16_000), endpoint=False, dtype=np.float32)
        soundfile.write(folder / f"{index:02d}.wav", ramp, 16_000, subtype="FLOAT")
    return scan([folder])[0][""]


@pytest.fixture
def imaginary():
    """5000 entries without files: enough for planning."""
    samples = np.random.default_rng(3).uniform(1, 20, 5000) * 16_000
    return Manifest(tuple(Entry(f"/{i}.wav", int(n)) for i, n in enumerate(samples)))


def same(a, b):
    return torch.equal(a.waveforms, b.waveforms) and torch.equal(a.lengths, b.lengths) and a.paths == b.paths


def break_file(path):
    with open(path, "wb") as file:
        file.write(b"gone")


def test_every_utterance_is_in_an_epoch_once(imaginary):
    config = BatchConfig()
    stream = BatchStream(imaginary, config)
    entries = [entry for entry in imaginary.entries if entry.samples >= 32_000]
    assert 0 < len(entries) < 5000
    assert stream.entries == entries
    longest = int(15.6 * 16_000)
    owners = [index for index, entry in enumerate(entries) for _ in range(math.ceil(entry.samples / longest))]
    assert len(owners) > len(entries)
    assert stream.owners.tolist() == owners
    start = 0
    plans = [stream.plan(epoch) for epoch in range(3)]
    for plan in plans:
        members = [stream.members(index) for index in range(start, start + len(plan))]
        assert members == plan  # epochs follow one another, none shares a batch with the next
        assert sorted(i for batch in members for i in batch) == list(range(len(owners)))
        start += len(plan)
    assert plans[0] != plans[1] != plans[2] != plans[0]


def test_batches_keep_the_budget_and_waste_little(imaginary):
    stream = BatchStream(imaginary, BatchConfig())
    plan = stream.plan(0)
    taken = 0
    for batch in plan:
        longest = max(stream.lengths[i] for i in batch)
        assert len(batch) * longest <= 160 * 16_000
        taken += len(batch) * min(stream.lengths[i] for i in batch)
    assert int(15.5 * 16_000) < stream.lengths.max() <= int(15.6 * 16_000)
    assert taken > 0.97 * stream.lengths.sum()
    assert len(plan) < 1.1 * stream.lengths.sum() / (160 * 16_000)


def test_a_batch_holds_one_utterance_at_least(imaginary):
    stream = BatchStream(imaginary, BatchConfig(seconds_per_batch=15.6, max_seconds=15.6))
    sizes = [len(batch) for batch in stream.plan(0)]
    assert min(sizes) == 1


def test_crops_are_as_long_as_the_shortest_and_vary(manifest):
    stream = BatchStream(manifest, CONFIG)
    starts: dict[str, set[float]] = {}
    for index in range(4 * len(stream.plan(0))):
        batch = stream[index]
        shortest = min(stream.lengths[i] for i in stream.members(index))
        assert batch.waveforms.dtype == torch.float32
        assert batch.lengths.dtype == torch.int64
        assert batch.waveforms.shape == (len(batch.paths), shortest)
        assert batch.lengths.tolist() == [shortest] * len(batch.paths)
        assert shortest <= 16_000
        for row, path in zip(batch.waveforms, batch.paths, strict=True):
            assert (row.diff() > 0).all()  # one piece of the ramp, nothing padded
            starts.setdefault(path, set()).add(float(row[0]))
    cropped = [path for path, values in starts.items() if max(values) > 0]
    assert len(cropped) > 5
    assert all(len(starts[entry.path]) > 1 for entry in manifest.entries if entry.samples > 17_000)


@pytest.mark.parametrize("workers", [0, 2])
def test_neither_workers_nor_history_nor_order_matter(manifest, workers):
    stream = BatchStream(manifest, CONFIG)
    stop = len(stream.plan(0)) + 3  # over the end of an epoch
    expected = {index: BatchStream(manifest, CONFIG)[index] for index in reversed(range(stop))}
    np.random.seed(1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    loaded = list(loader(stream, 0, stop, workers))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(loaded) == stop
    assert all(same(batch, expected[index]) for index, batch in enumerate(loaded))
    assert same(stream[0], expected[0])
    assert not any(same(expected[0], expected[index]) for index in range(1, stop))


def test_the_seed_changes_order_and_crops(manifest):
    one, other = (BatchStream(manifest, BatchConfig(4.0, 0.3, 1.0, 3, seed)) for seed in (0, 1))
    assert one.plan(0) != other.plan(0)


@pytest.mark.parametrize("start", [0, 3, 4])
def test_strides_share_the_batches_out(manifest, start):
    stream = BatchStream(manifest, CONFIG)
    for offset in range(3):
        loaded = list(loader(stream, start, 9, stride=3, offset=offset))
        wanted = [index for index in range(start, 9) if index % 3 == offset]
        assert len(loaded) == len(wanted)
        assert all(same(batch, stream[index]) for batch, index in zip(loaded, wanted, strict=True))


def test_far_batches_cost_no_memory(imaginary):
    stream = BatchStream(imaginary, BatchConfig())
    epochs = 12
    far = sum(len(stream.plan(epoch)) for epoch in range(epochs))
    assert stream.members(far) == stream.plan(epochs)[0]
    assert len(stream._plans) <= 2
    assert stream.members(0) == stream.plan(0)[0]
    with pytest.raises(IndexError, match="allowed: 0 or more"):
        stream.members(-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_is_left_out_and_recorded(manifest, workers, caplog):
    stream = BatchStream(manifest, CONFIG)
    index = next(i for i in range(20) if len(stream.members(i)) > 1)
    whole = stream[index]
    break_file(whole.paths[0])
    caplog.set_level(logging.WARNING)
    (batch,) = loader(stream, index, index + 1, workers)
    assert batch.paths == whole.paths[1:]
    assert torch.equal(batch.waveforms, whole.waveforms[1:])  # the others are cropped as ever
    assert [bad.path for bad in batch.failed] == [whole.paths[0]]
    assert "unreadable" in batch.failed[0].reason
    if not workers:
        assert stream.failures == list(batch.failed)
        assert "left out" in caplog.text
        assert whole.paths[0] in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_batch_stands_in_for_one_without_any_file(manifest, workers):
    stream = BatchStream(manifest, UNCUT)
    lost = {stream.entries[stream.owners[i]].path for index in (1, 2) for i in stream.members(index)}
    for path in lost:
        break_file(path)
    whole = [stream[index] for index in (0, 3)]
    for world in (1, 2):
        ranks = [list(loader(stream, 0, 4, workers, stride=world, offset=rank)) for rank in range(world)]
        assert [len(batches) for batches in ranks] == [4 // world] * world
        batches = [ranks[index % world][index // world] for index in range(4)]
        assert same(batches[0], whole[0])
        assert all(same(batch, whole[1]) for batch in batches[1:])
        assert [bad.path for bad in batches[2].failed] == [
            stream.entries[stream.owners[i]].path for i in stream.members(2)
        ]
        assert {bad.path for bad in batches[1].failed} == lost
        assert not batches[3].failed


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_lost_corpus_is_an_error(manifest, workers):
    stream = BatchStream(manifest, CONFIG)
    for entry in stream.entries:
        break_file(entry.path)
    with pytest.raises(
        DataError, match=r"no file of 10 batches in a row can be read, the first: .*unreadable"
    ):
        list(loader(stream, 0, 1, workers))
    with pytest.raises(DataError, match=r"no file for validation can be read, the first: .*unreadable"):
        validation_batches(manifest, CONFIG, 3)


def test_validation_passes_over_what_cannot_be_read(manifest):
    whole = validation_batches(manifest, UNCUT, 4)
    for path in whole[1].paths:
        break_file(path)
    left = validation_batches(manifest, UNCUT, 3)
    assert all(same(a, b) for a, b in zip(left, (whole[0], *whole[2:]), strict=True))


def test_a_file_shorter_than_its_header_promised_is_left_out(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5), 16_000)
    stream = BatchStream(Manifest((Entry(str(path), 16_000),)), CONFIG)
    batch = stream.attempt(0)
    assert batch.waveforms.shape == (0, 0)
    assert len(batch.lengths) == len(batch.paths) == 0
    assert [bad.path for bad in batch.failed] == [str(path)]
    assert "ends early, its header promised 16000 samples" in batch.failed[0].reason
    assert stream.failures == list(batch.failed)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1), (2, 2), (3, 2)])
def test_ranks_share_every_epoch_and_take_equal_steps(manifest, world, accumulate, workers):
    stream = BatchStream(manifest, CONFIG)
    epoch = len(stream.plan(0))
    each = world * accumulate  # micro-batches an update
    ends = [epoch, epoch + len(stream.plan(1))]
    updates = math.ceil(ends[1] / each) + 1

    def run(rank, begin):
        own = BatchStream(manifest, CONFIG)  # ranks share nothing but manifest and configuration
        return list(loader(own, begin * each, updates * each, workers, stride=world, offset=rank))

    ranks = [run(rank, 0) for rank in range(world)]
    assert [len(batches) for batches in ranks] == [updates * accumulate] * world
    in_order = [ranks[index % world][index // world] for index in range(updates * each)]
    for first, stop in zip([0, epoch], ends, strict=True):
        paths = [path for batch in in_order[first:stop] for path in batch.paths]
        assert sorted(paths) == sorted(stream.entries[owner].path for owner in stream.owners)
    for begin in range(1, updates) if not workers else [updates - 1]:
        for rank in range(world):
            resumed = run(rank, begin)
            assert len(resumed) == (updates - begin) * accumulate
            left = ranks[rank][begin * accumulate :]
            assert all(same(a, b) for a, b in zip(resumed, left, strict=True))


def test_an_update_across_the_end_of_an_epoch_is_filled_from_the_next(manifest):
    stream = BatchStream(manifest, CONFIG)
    epoch = len(stream.plan(0))
    last, first = loader(stream, epoch - 1, epoch + 1)
    assert [set(last.paths), set(first.paths)] == [
        {stream.entries[stream.owners[i]].path for i in batch}
        for batch in (stream.plan(0)[-1], stream.plan(1)[0])
    ]


def test_validation_is_fixed_and_limited(manifest):
    first = validation_batches(manifest, CONFIG, 3)
    again = validation_batches(manifest, CONFIG, 3)
    assert len(first) == len(again) == 3
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    epoch = len(BatchStream(manifest, CONFIG).plan(0))
    paths = [path for batch in validation_batches(manifest, CONFIG, 1000) for path in batch.paths]
    stream = BatchStream(manifest, CONFIG)
    assert sorted(paths) == sorted(stream.entries[owner].path for owner in stream.owners)
    assert len(validation_batches(manifest, CONFIG, 1000)) == epoch


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("crops", ["random", "fixed"])
def test_an_epoch_hears_all_of_a_long_recording(tmp_path, crops, rate):
    """A ramp of 40 s, whose values tell which samples were heard."""
    ramp = np.linspace(0, 1, 40 * rate, endpoint=False, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", ramp, rate, subtype="FLOAT")
    config = BatchConfig(9.0, 0.5, 3.0, 4, seed=1, crops=crops)
    stream = BatchStream(scan([tmp_path])[0][""], config)
    assert stream.lengths.tolist() == [640_000 * (i + 1) // 14 - 640_000 * i // 14 for i in range(14)]
    epoch = len(stream.plan(0))
    ends = [epoch, epoch + len(stream.plan(1))]
    for first, stop in zip([0, epoch], ends, strict=True):
        batches = [stream[index] for index in range(first, stop)]
        heard = np.sort(np.concatenate([np.round(b.waveforms.numpy() * 640_000).ravel() for b in batches]))
        assert len(heard) >= 640_000 - 14
        assert len(np.unique(heard[500:-500])) > 0.999 * 639_000
        keys = [key for batch in batches for key in batch.keys]
        assert len(set(keys)) == (14 if crops == "fixed" else 0)
    resumed = list(loader(BatchStream(scan([tmp_path])[0][""], config), epoch - 1, epoch + 2))
    assert all(same(batch, stream[epoch - 1 + index]) for index, batch in enumerate(resumed))


def test_hours_of_long_recordings_weigh_as_hours(imaginary):
    long = tuple(Entry(f"/long{i}.wav", 3600 * 16_000) for i in range(3))
    stream = BatchStream(Manifest(imaginary.entries + long), BatchConfig())
    share = stream.lengths[stream.owners >= len(stream.entries) - 3].sum() / stream.lengths.sum()
    assert share == pytest.approx(3 * 3600 * 16_000 / sum(entry.samples for entry in stream.entries))


def test_utterances_of_at_most_max_seconds_are_batched_as_ever(imaginary):
    """Batches and crops of a corpus without long recordings, as they were before there were segments."""
    short_manifest = Manifest(tuple(entry for entry in imaginary.entries if entry.samples <= 15.6 * 16_000))
    stream = BatchStream(short_manifest, BatchConfig(seed=5))
    assert not stream.starts.any()
    assert stream.plan(1)[3][:5] == [1222, 1909, 1364, 1719, 1884]


def test_the_share_that_an_epoch_hears_is_told(manifest, tmp_path, caplog):
    assert epoch_share(manifest, CONFIG).startswith("an epoch hears 97.1% of 0.00 h: 2 of 20 utterances")
    assert epoch_share(manifest, BatchConfig(4.0, 0.1, 1.0)) == ""
    manifest.save(tmp_path / "x.tsv")
    read_data(DataConfig(str(tmp_path / "x.tsv"), batch=CONFIG))
    assert f"{tmp_path}/x.tsv: an epoch hears 97.1%" in caplog.text
    assert "shorter than 0.3 s (data.batch.min_seconds) and left out" in caplog.text


@pytest.mark.parametrize("field", ["seconds_per_batch", "min_seconds", "max_seconds", "buckets", "seed"])
@pytest.mark.parametrize("value", ["8", None, True, math.nan, math.inf])
def test_fields_are_finite_numbers(field, value):
    with pytest.raises(ConfigError, match=f"{field} is {value!r}, allowed: a (finite|whole) number"):
        BatchConfig(**{field: value})


def test_every_fault_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        BatchConfig(seconds_per_batch=-1, min_seconds=0, max_seconds=-2, buckets=0, seed=-1)
    for part in (
        "seconds_per_batch is -1",
        "min_seconds is 0",
        "max_seconds is -2",
        "buckets is 0",
        "seed is -1",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match=r"buckets is 1\.5.*; seed is 'x'"):
        BatchConfig(buckets=1.5, seed="x")


def test_nothing_long_enough(manifest):
    with pytest.raises(DataError, match=r"no utterance lasts 2 s \(min_seconds\) or more"):
        BatchStream(manifest, BatchConfig())


def test_a_loader_pins_waveforms_and_leaves_the_rest_as_it_is(manifest, monkeypatch):
    """As torch's loader does in a thread of its own where there is a GPU."""
    pinned = []
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor.clone()
    )
    batch = BatchStream(manifest, replace(CONFIG, crops="fixed"))[0]
    copied = pin_memory(batch)
    assert type(copied) is type(batch)
    assert pinned == [batch.waveforms.shape]
    assert torch.equal(copied.waveforms, batch.waveforms) and copied.waveforms is not batch.waveforms
    assert copied[1:] == batch[1:] and copied.keys
    assert batch.to(torch.device("cpu")) is batch


def test_a_disk_that_never_answers_ends_the_run_with_its_reason(manifest, monkeypatch):
    monkeypatch.setattr(batches, "READ_TIMEOUT", 1)
    monkeypatch.setattr(batches, "read", lambda *_: time.sleep(60))
    with pytest.raises(RuntimeError, match="timed out") as caught:
        next(iter(loader(BatchStream(manifest, CONFIG), 0, 1, num_workers=1)))
    assert describe(caught.value).startswith(
        "no audio could be read for too long; a disk or a network may be"
    )
