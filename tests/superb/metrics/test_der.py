"""The diarization error rate: by hand, and against NIST's md-eval."""

from __future__ import annotations

import random

import numpy as np
import pytest

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.metrics.der import (
    SpeakerErrors,
    best,
    errors,
    median,
    read_activity,
    read_frame_shift,
    read_rttm,
    turns,
)
from s3prl_dphubert.superb.metrics.parsers import Output
from s3prl_dphubert.superb.tasks import find

h5py = pytest.importorskip("h5py", reason="s3prl's diarization writes HDF5")
pytest.importorskip("scipy", reason="the mapping of speakers is scipy's")


def parts(result: SpeakerErrors) -> tuple[float, ...]:
    return result.spoken, result.missed, result.false_alarm, result.confused


def test_overlapping_speakers_by_hand():
    """A speaks 0-10 s, B 8-12 s (spoken: 14 s); predicted 1 in 0-9 s, 2 in 9-12 s.

    1 is A (9 s shared), 2 is B (3 s). In 8-9 s B and in 9-10 s A is missed: 2 / 14.
    """
    result = errors({"A": [(0, 10)], "B": [(8, 12)]}, {"1": [(0, 9)], "2": [(9, 12)]})
    assert parts(result) == pytest.approx((14, 2, 0, 0))
    assert result.rate == pytest.approx(2 / 14)


def test_more_speakers_predicted_than_there_are_by_hand():
    """A speaks 0-4 s; predicted 1 in 0-3 s, 2 in 2-4 s, 3 in 4-5 s.

    1 is A. In 2-3 s 2 is one too many and in 4-5 s 3 is (2 s false alarm); in 3-4 s 2 is taken
    for A (1 s confused): 3 / 4.
    """
    result = errors({"A": [(0, 4)]}, {"1": [(0, 3)], "2": [(2, 4)], "3": [(4, 5)]})
    assert parts(result) == pytest.approx((4, 0, 2, 1))
    assert result.rate == pytest.approx(0.75)


def test_the_best_mapping_is_not_the_greedy_one_by_hand():
    """A shares 5 s with 1 and 4 s with 2, B 4 s with 1 and none with 2: 8 s right in all, not 5 s."""
    truth = {"A": [(0, 9)], "B": [(9, 13)]}
    result = errors(truth, {"1": [(0, 5), (9, 13)], "2": [(5, 9)]})
    assert parts(result) == pytest.approx((13, 0, 0, 5))


def test_silence():
    assert parts(errors({}, {})) == (0, 0, 0, 0)
    assert parts(errors({"A": [(1, 3)]}, {})) == (2, 2, 0, 0)
    assert parts(errors({}, {"1": [(1, 3)]})) == (0, 0, 2, 0)
    with pytest.raises(ResultError, match="holds no speech"):
        _ = errors({}, {"1": [(1, 3)]}).rate
    assert (errors({"A": [(1, 3)]}, {}) + errors({}, {"1": [(0, 1)]})).rate == 1.5


def case(seed: int):
    draw = random.Random(seed)

    def side(speakers, count):
        spans_of = {}
        for _ in range(count):
            begin = round(draw.uniform(0, 20), 2)
            spans = spans_of.setdefault(f"s{draw.randrange(speakers)}", [])
            spans.append((begin, round(begin + draw.uniform(0.05, 4), 2)))
        return spans_of

    return side(1 + seed % 4, 3 + seed), side(1 + (seed * 7) % 5, 2 + 2 * seed)


MD_EVAL = {
    1: (5.16, 4.83, 5.12, 0.03),
    2: (9.33, 8.17, 10.89, 0.0),
    3: (11.75, 4.73, 11.1, 2.03),
    4: (8.63, 3.16, 6.72, 0.08),
    5: (18.56, 9.82, 6.91, 0.89),
    6: (13.1, 4.97, 20.04, 2.41),
    7: (14.2, 2.69, 17.76, 2.96),
    8: (13.44, 3.44, 10.91, 0.0),
}
"""Scored, missed, false alarm and confused speaker time by NIST's md-eval 22 with -c 0 on the cases
above, overlapping turns of a speaker merged, scored from the first to the last turn."""


def test_the_same_as_md_eval():
    total = SpeakerErrors()
    for seed, wanted in MD_EVAL.items():
        result = errors(*case(seed))
        assert parts(result) == pytest.approx(wanted, abs=0.006)
        total += result
    assert len(MD_EVAL) == 8
    assert round(100 * total.rate, 2) == 148.31  # md-eval's for all eight together


def test_frames_become_turns():
    """Frames of 20 ms: 1 speaks in frames 1-3 (0.02 s to 0.08 s) and 5, 0 in none."""
    activity = np.array([[0, 0], [0, 1], [0, 1], [0, 1], [0, 0], [0, 1]], dtype=bool)
    assert turns(activity, 0.02) == {"1": [(0.02, 0.08), (0.1, 0.12)]}


@pytest.mark.filterwarnings("ignore:kernel_size exceeds")
def test_the_median_filter_is_scipys():
    from scipy.signal import medfilt

    activity = np.random.default_rng(0).random((40, 2)) > 0.5
    for length in (40, 7):
        wanted = medfilt(activity[:length].astype(float), (11, 1)) > 0.5
        assert np.array_equal(median(activity[:length], 11), wanted)
    assert median(activity, 1) is activity


@pytest.fixture
def run(tmp_path):
    """Two recordings of 2 s in frames of 20 ms; the second has a chance of 0.45 where 1 speaks."""
    folder = tmp_path / "expdir"
    (folder / "scoring/predictions").mkdir(parents=True)
    (folder / "frame_shift").write_text("320\n")
    for name, chance in (("rec1", 0.9), ("rec2", 0.45)):
        values = np.full((100, 2), 0.05, dtype=np.float32)
        values[10:60, 0], values[50:90, 1] = chance, 0.9
        with h5py.File(folder / "scoring/predictions" / f"{name}.h5", "w") as file:
            file.create_dataset("T_hat", data=values)
    lines = [
        f"SPEAKER {name} 1 {begin:.2f} {length:.2f} <NA> <NA> {speaker} <NA> <NA>"
        for name in ("rec1", "rec2")
        for begin, length, speaker in ((0.2, 1.0, "A"), (1.0, 0.8, "B"))
    ]
    (tmp_path / "rttm").write_text("\n".join(lines) + "\n")
    return folder, tmp_path / "rttm"


def test_the_best_threshold_is_found(run):
    """At 0.3 and 0.4 all is right; from 0.5 on, 1 s of 3.6 s is missed."""
    folder, rttm = run
    chosen = best(folder, rttm)
    assert (chosen.rate, chosen.threshold, chosen.median) == (pytest.approx(0, abs=1e-9), 0.3, 1)
    assert find("SD").read({"": Output(folder=folder, reference=rttm)}) == pytest.approx({"der": 0}, abs=1e-6)
    said = {
        name: turns(read_activity(folder / f"scoring/predictions/{name}.h5") > 0.5, 0.02)
        for name in ("rec1", "rec2")
    }
    total = sum((errors(of, said[name]) for name, of in read_rttm(rttm).items()), SpeakerErrors())
    assert total.rate == pytest.approx(1.0 / 3.6)


def test_files_that_cannot_be_used_are_named(run, tmp_path):
    folder, rttm = run
    rttm.write_text(rttm.read_text() + "SPEAKER rec3 1 0 1 <NA> <NA> A <NA> <NA>\n")
    with pytest.raises(ResultError, match="differ in rec3"):
        best(folder, rttm)
    rttm.write_text("SPEAKER rec1 1 zero 1 <NA> <NA> A <NA>\n")
    with pytest.raises(ResultError, match="line 1: not an RTTM line"):
        read_rttm(rttm)
    rttm.write_text("\n")
    with pytest.raises(ResultError, match="holds no SPEAKER line"):
        read_rttm(rttm)
    with pytest.raises(ResultError, match="the site assumes 160"):
        read_frame_shift(tmp_path / "nothing")
    for content in (b"20 ms", b"0", b"\xff"):
        with pytest.raises(ResultError, match="frame_shift"):
            read_frame_shift(content)


@pytest.mark.parametrize(
    "values", [np.zeros((3, 2), dtype=int), np.full((3, 2), 1.5), np.zeros(4), np.zeros((0, 2))]
)
def test_activities_that_are_no_probabilities_are_refused(values, tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("T_hat", data=values)
    with pytest.raises(ResultError, match=r"allowed: \(F, speakers\) of 0 to 1"):
        read_activity(path)
    with pytest.raises(ResultError, match="not readable as HDF5"):
        read_activity(b"no HDF5")
