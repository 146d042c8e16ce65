"""Distortion of converted speech: s3prl's numbers, kept, and where they come from in a run."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from s3prl_dphubert.data.audio import SAMPLE_RATE
from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.metrics import mcd
from s3prl_dphubert.superb.metrics.parsers import Output
from s3prl_dphubert.superb.tasks import find
from s3prl_dphubert.superb.tasks.vc import PITCH
from tests.helpers.corpora import put
from tests.helpers.golden import ROOT
from tests.helpers.sg_corpora import TALKERS, VCC_RATE, cut

GOLDEN = json.loads((ROOT / "tests" / "golden" / "conversion.json").read_text())
SOURCES = "SEF1", "SEM2"
NEEDS_WORLD = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("pyworld", "fastdtw")),
    reason="superb_vc is an extra, compiled when it is installed",
)


def run(root: Path, speaker: str = "TEM2") -> tuple[Path, Path]:
    """Folders of an evaluation and of the originals: two people say something, a third something else."""
    folder, reference = root / "vc" / speaker / "candidates" / "states-2", root / "vcc2020"
    first, second, third = (soxr.resample(cut(talker, 1)[0], SAMPLE_RATE, VCC_RATE) for talker in TALKERS[:3])
    for source, audio in zip(SOURCES, (first, second), strict=True):
        put(folder / "0" / "test" / "wav" / f"{source}_E30001.wav", audio, VCC_RATE)
    put(reference / speaker / "E30001.wav", third, VCC_RATE)
    return folder, reference


@NEEDS_WORLD
@pytest.mark.parametrize("speaker", ["TEF1", "TEM2"])
def test_distortion_is_s3prls(speaker, tmp_path):
    folder, reference = run(tmp_path, speaker)
    distortions = {
        source: mcd.distortion(
            folder / "0/test/wav" / f"{source}_E30001.wav",
            reference / speaker / "E30001.wav",
            PITCH[speaker],
        )
        for source in SOURCES
    }
    assert distortions == pytest.approx(GOLDEN[speaker], abs=1e-6)


@NEEDS_WORLD
def test_a_run_is_scored_once(tmp_path, monkeypatch):
    folder, reference = run(tmp_path)
    output = Output("test loss: 2.4\n", folder, reference)
    wanted = pytest.approx(np.mean(list(GOLDEN["TEM2"].values())), abs=1e-6)
    assert find("VC").metric("mcd").read(output) == wanted
    assert len(json.loads((folder / mcd.FILE).read_text())) == 2

    def refused(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(mcd, "distortion", refused)
    assert mcd.score(folder, reference, PITCH) == wanted
    (folder / mcd.FILE).write_text("damaged")
    with pytest.raises(AssertionError, match="measured again"):
        mcd.score(folder, reference, PITCH)


@NEEDS_WORLD
def test_several_processes_measure_the_same(tmp_path, monkeypatch):
    folder, reference = run(tmp_path)
    monkeypatch.setattr(mcd, "A_PROCESS", 1)
    monkeypatch.setattr(mcd.os, "cpu_count", lambda: 2)
    assert mcd.score(folder, reference, PITCH) == pytest.approx(
        np.mean(list(GOLDEN["TEM2"].values())), abs=1e-6
    )
    distortions = json.loads((folder / mcd.FILE).read_text())
    by_source = {key.split("/")[-1].split("_")[0]: value for key, value in distortions.items()}
    assert by_source == pytest.approx(GOLDEN["TEM2"], abs=1e-6)


@NEEDS_WORLD
def test_what_was_converted_anew_is_measured_anew(tmp_path):
    folder, reference = run(tmp_path)
    before = mcd.score(folder, reference, PITCH)
    path = folder / "0" / "test" / "wav" / "SEF1_E30001.wav"
    audio, rate = soundfile.read(path)
    put(path, audio[::-1].copy(), rate)
    os.utime(path, ns=(1, 1))
    assert mcd.score(folder, reference, PITCH) != before


def test_all_speakers_are_averaged_and_the_rest_may_be_missing(tmp_path):
    line = "Mean MCD, f0RMSE, f0CORR, DDUR, CER, WER, accept rate: 7.{} 30.10 nan 0.250 2.1 4.2 9{}.00\n"
    outputs = {}
    for number, speaker in enumerate(PITCH):
        log = tmp_path / speaker / "0" / "test" / "pwg_wav" / "obj.log"
        log.parent.mkdir(parents=True)
        log.write_text(line.format(number, number))
        outputs[speaker] = Output("test loss: 1\n", tmp_path / speaker)
    assert find("VC").read(outputs) == pytest.approx({"mcd": 7.15, "wer": 4.2, "asv": 91.5})
    bare = line.partition(",")[0].replace("Mean MCD", "nothing")
    with pytest.raises(ResultError, match="VC, mcd: no line 'Mean MCD, f0RMSE"):
        find("VC").read(dict.fromkeys(PITCH, Output(bare)))


def test_what_is_missing_is_named(tmp_path):
    folder, reference = run(tmp_path)
    with pytest.raises(ResultError, match="names no target speaker, allowed: TEF1, TEF2, TEM1, TEM2"):
        mcd.score(tmp_path / "vc", reference, PITCH)
    with pytest.raises(ResultError, match=r"no conversions .*TEM2/\*/test/wav"):
        mcd.score(tmp_path / "vc" / "TEM2", reference, PITCH)
    (reference / "TEM2" / "E30001.wav").unlink()
    with pytest.raises(ResultError, match=r"E30001\.wav to compare"):
        mcd.score(folder, reference, PITCH)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    folder, reference = run(tmp_path)
    monkeypatch.setitem(sys.modules, "fastdtw", None)
    with pytest.raises(ResultError, match="pip install pyworld fastdtw scipy"):
        mcd.score(folder, reference, PITCH)


def test_warping_keeps_the_energy_of_a_flat_spectrum():
    """A spectrum that is 1 everywhere has no cepstrum; twice as loud adds log 2 to the energy alone."""
    flat = np.ones((1, mcd.FFT // 2 + 1))
    assert mcd.mel_cepstra(flat) == pytest.approx(np.zeros((1, mcd.ORDER + 1)), abs=1e-12)
    louder = mcd.mel_cepstra(2 * flat)[0]
    assert louder[0] == pytest.approx(np.log(2) / 2)
    assert louder[1:] == pytest.approx(np.zeros(mcd.ORDER), abs=1e-12)
