"""The check that decodes everything once: what is bad, in any number of processes, whatever happens."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest
import soundfile

from s3prl_dphubert.data import validate as module
from s3prl_dphubert.data.manifest import Entry, Manifest, scan
from s3prl_dphubert.data.validate import check
from tests.helpers.speech import encoded, pack, tone


def put(path, data, **options):
    soundfile.write(path, data, 16_000, **options)
    return Entry(str(path), len(data))


@pytest.fixture
def manifest(tmp_path):
    """Two good files, a good one in a shard, and one of every kind of bad."""
    nan, loud = tone(1.0), tone(2.0)
    nan[100] = np.inf
    loud[:3200] = 1.0
    good = [put(tmp_path / "good.wav", tone(1.0)), put(tmp_path / "loud.wav", loud)]
    pack(tmp_path / "a.tar", {"1.flac": encoded(tone(3.0), "flac")})
    good += scan([tmp_path / "a.tar"])[0][""].entries
    bad = [
        put(tmp_path / "nan.wav", nan, subtype="FLOAT"),
        put(tmp_path / "silent.wav", np.zeros(16_000, np.float32)),
        Entry(put(tmp_path / "shorter.wav", tone(0.5)).path, 8100),
        Entry(put(tmp_path / "longer.wav", tone(0.5)).path, 7900),
        put(tmp_path / "noise.wav", tone(0.5)),
        Entry(str(tmp_path / "gone.wav"), 16_000),
        Entry(str(tmp_path / "gone.tar#512+100/1.wav"), 16_000),
        good[0],
    ]
    (tmp_path / "noise.wav").write_bytes(np.random.default_rng(0).bytes(999))
    return Manifest((*good, *bad))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_fault_is_reported_in_order(manifest, workers, monkeypatch, capsys):
    monkeypatch.setattr(module, "CHUNK", 3)
    report = check(manifest, workers)
    assert [item.path for item in report.bad] == [entry.path for entry in manifest.entries[3:]]
    reasons = [item.reason for item in report.bad]
    assert reasons[:4] == [
        "non-finite samples",
        "silent, all samples are zero",
        "shorter than listed: 8000 samples, the manifest says 8100",
        "longer than listed: 8000 samples, the manifest says 7900",
    ]
    assert all(reason.startswith("unreadable (") for reason in reasons[4:7])
    assert reasons[7:] == ["is listed more than once"]
    assert report.files == 11
    assert report.seconds == pytest.approx(6.0)
    assert report.quantiles == pytest.approx((1.0, 1.1, 2.0, 2.9, 3.0))
    assert report.clipped == pytest.approx(3200 / 96_000)
    assert report.clipped_files == 1
    shown = capsys.readouterr()
    assert not shown.out
    assert "10/10" in shown.err
    assert "file/s" in shown.err


def test_the_summary(manifest):
    lines = check(manifest).text().splitlines()
    assert lines[:4] == [
        "3 of 11 utterances are good, 8 are bad",
        "0.00 h of good audio",
        "lengths: 0% 1.00 s, 5% 1.10 s, 50% 2.00 s, 95% 2.90 s, 100% 3.00 s",
        "clipped: 3.333% of the samples; more than 1% of them in 1 utterances",
    ]
    assert len(lines) == 12
    assert lines[4] == f"bad: {manifest.entries[3].path}: non-finite samples"


def test_a_difference_that_decoders_make_is_no_fault(tmp_path):
    entry = put(tmp_path / "a.wav", tone(0.5))
    assert not check(Manifest((Entry(entry.path, entry.samples + 32),))).bad
    assert check(Manifest((Entry(entry.path, entry.samples + 33),))).bad


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_good(tmp_path, workers):
    report = check(Manifest((Entry(str(tmp_path / "gone.wav"), 16_000),)), workers)
    assert (len(report.bad), report.seconds, report.quantiles, report.clipped_files) == (1, 0.0, (), 0)
    assert "0 of 1 utterances are good" in report.text()
    assert check(Manifest(())).text().startswith("0 of 0 utterances")


def test_a_file_that_crashes_the_decoder_is_found(tmp_path, monkeypatch):
    entries = [put(tmp_path / f"{index:02d}.wav", tone(0.5)) for index in range(12)]
    decode = module.decode

    def crashing(path):
        if path.endswith(("04.wav", "09.wav")):
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(path)

    forked = partial(ProcessPoolExecutor, mp_context=multiprocessing.get_context("fork"))
    monkeypatch.setattr(module, "ProcessPoolExecutor", forked)
    monkeypatch.setattr(module, "decode", crashing)
    monkeypatch.setattr(module, "CHUNK", 2)
    report = check(Manifest(tuple(entries)), 2)
    assert [(item.path, item.reason) for item in report.bad] == [
        (entries[index].path, "crashes the decoder") for index in (4, 9)
    ]
    assert report.seconds == pytest.approx(5.0)
