"""Scores by voice: equal to s3prl's own numbers on the whole test set, told apart by the names of items."""

from __future__ import annotations

from itertools import combinations

import editdistance
import h5py
import numpy as np
import pytest

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.metrics import der, mtwv
from s3prl_dphubert.superb.metrics.by_voice import (
    Accuracy,
    DiarizationErrors,
    EqualErrors,
    TermWeights,
    TextErrors,
)
from s3prl_dphubert.superb.metrics.eer import VerificationTrials
from s3prl_dphubert.superb.metrics.parsers import Output
from s3prl_dphubert.superb.scoring import stored_statistics
from s3prl_dphubert.superb.scoring.uncertainty import Ratio, estimate
from s3prl_dphubert.superb.tasks import find

KEYWORDS = {
    "yes-0000abcd_nohash_0.wav": ("yes", "yes"),
    "yes-0000abcd_nohash_1.wav": ("no", "yes"),
    "_unknown_-chair-0001abcd_nohash_0.wav": ("_unknown_", "_unknown_"),
    "_silence_-0001abcd_003.wav": ("_silence_", "_silence_"),
    "_silence_-0001abcd_004.wav": ("on", "_silence_"),
}
"""Item -> predicted and true label."""

TEXTS = {
    "118-1-0000": ("THE CAT SAT", "THE CAT SAT"),
    "118-1-0001": ("A DOG", "THE DOGS RAN"),
    "121-1-0000": ("", "WELL"),
}
"""Utterance -> hypothesis and reference."""


def write_pairs(folder, values, names, separator=" "):
    """Write one file of predictions and one of the truth."""
    for index, name in enumerate(names):
        lines = (f"{key}{separator}{pair[index]}\n" for key, pair in values.items())
        (folder / name).write_text("".join(lines))


def test_keywords_and_silence_of_a_voice_belong_together(tmp_path):
    write_pairs(tmp_path, KEYWORDS, ("test_predict.txt", "test_truth.txt"))
    statistic = find("KS").metric("acc").statistic(Output(folder=tmp_path))
    assert statistic == Ratio(("0000abcd", "0001abcd"), (1.0, 2.0), (2.0, 3.0))
    assert estimate(statistic).value == pytest.approx(60)


def test_intents_by_speaker_and_items_whose_names_tell_none(tmp_path):
    known = {"m7-0001": ("bring,shoes,none", "bring,shoes,none"), "m7-0002": ("a,b,c", "a,b,d")}
    unknown = {"0ab1-22-33": ("a,b,c", "a,b,c"), "0ab1-22-34": ("a,b,c", "a,b,c")}
    reader = find("IC").metric("acc").statistic
    for values, groups in ((known, ("m7",)), ({**unknown, "x": ("1", "2")}, (*unknown, "x"))):
        write_pairs(tmp_path, values, ("test_predict.csv", "test_truth.csv"), ",")
        if groups == ("m7",):
            assert reader(Output(folder=tmp_path)) == Ratio(("m7",), (1.0,), (2.0,))
        else:
            assert set(reader(Output(folder=tmp_path)).groups) == set(groups)


def test_predictions_of_other_items_are_refused(tmp_path):
    write_pairs(tmp_path, KEYWORDS, ("test_predict.txt", "test_truth.txt"))
    (tmp_path / "test_truth.txt").write_text("yes-0000abcd_nohash_0.wav yes\n")
    with pytest.raises(ResultError, match="test_predict and test_truth are of other items"):
        Accuracy()(Output(folder=tmp_path))
    with pytest.raises(ResultError, match="no such file"):
        Accuracy()(Output(folder=tmp_path / "nowhere"))


@pytest.mark.parametrize("characters", [False, True])
def test_errors_in_texts_are_those_of_editdistance(characters, tmp_path):
    write_pairs(tmp_path, TEXTS, ("test-hyp.ark", "test-ref.ark"))
    statistic = TextErrors("test", characters)(Output(folder=tmp_path))
    split = list if characters else str.split
    errors = {key: editdistance.eval(split(hyp), split(ref)) for key, (hyp, ref) in TEXTS.items()}
    lengths = {key: len(split(ref)) for key, (_, ref) in TEXTS.items()}
    assert statistic.groups == ("118", "121")
    assert statistic.numerators == (errors["118-1-0000"] + errors["118-1-0001"], errors["121-1-0000"])
    assert estimate(statistic).value == pytest.approx(100 * sum(errors.values()) / sum(lengths.values()))


SLOTS = {
    "m7-snips-test-0": (
        "B-city NEW YORK E-city B-day TODAY E-day",
        "IN B-city NEW YORK E-city B-day TODAY E-day",
    ),
    "m7-snips-test-1": (
        "B-city OSLO E-city",
        "B-city OSLO E-city TO B-city LISBON E-city B-day MONDAY E-day",
    ),
    "m8-snips-test-0": ("PLAY B-artist ABA E-artist B-city E-city", "PLAY B-artist ABBA E-artist"),
    "m8-snips-test-1": ("", "B-day TODAY E-day"),
    "m8-snips-test-2": ("B-day TODAY", "NOTHING AT ALL"),
    "m8-snips-test-3": ("B-a X B-day NOON E-day E-a", "B-a X NOON E-a"),
}


@pytest.mark.s3prl
def test_slots_by_voice_have_s3prls_numbers(tmp_path):
    from s3prl.metric.slot_filling import slot_type_f1, slot_value_cer

    write_pairs(tmp_path, SLOTS, ("test-hyp.ark", "test-ref.ark"))
    hypotheses, references = zip(*SLOTS.values(), strict=True)
    for name, theirs in (("f1", slot_type_f1), ("cer", slot_value_cer)):
        statistic = find("SF").metric(name).statistic(Output(folder=tmp_path))
        assert statistic.groups == ("m7", "m8")
        assert estimate(statistic).value == pytest.approx(100 * theirs(list(hypotheses), list(references)))


def test_trials_by_voice_are_those_of_the_matrix_of_scores(tmp_path):
    random = np.random.default_rng(0)
    voices = np.repeat(["id10001", "id10002", "id10003"], 12)
    names = [f"{voice}-game-{index:05}" for index, voice in enumerate(voices)]
    vectors = random.normal(size=(36, 6)) + 2 * np.eye(6)[[int(voice[-1]) for voice in voices]]
    scores = vectors @ vectors.T
    pairs = list(combinations(range(36), 2))
    lines = [f"{names[i]}_{names[j]} {float(scores[i, j])!r}\n" for i, j in pairs]
    (tmp_path / "test_predict.txt").write_text("".join(lines))
    read = EqualErrors()(Output(folder=tmp_path))
    whole = VerificationTrials.of_scores([(scores, list(voices))], bins=100)
    assert read.groups == whole.groups
    assert (read.pairs == whole.pairs).all() and (read.counts == whole.counts).all()
    assert estimate(read) == estimate(whole)
    (tmp_path / "test_predict.txt").write_text("a b 3\n")
    with pytest.raises(ResultError, match="allowed: FIRST_SECOND"):
        EqualErrors()(Output(folder=tmp_path))


def write_search(folder, seed):
    """Write a search of 8 queries in 60 documents, three of which hold each query."""
    random = np.random.default_rng(seed)
    documents, queries = [f"d{n:03}" for n in range(60)], [f"q{n}" for n in range(8)]
    excerpts = "".join(f'<excerpt audio_filename="{name}.wav"/>' for name in documents)
    terms = "".join(f'<term termid="{name}"><termtext>{name}</termtext></term>' for name in queries)
    (folder / "x.ecf.xml").write_text(f"<ecf>{excerpts}</ecf>")
    (folder / "x.tlist.xml").write_text(f"<termlist>{terms}</termlist>")
    lines, detected = [], []
    for query in queries:
        where = random.choice(documents, 3, replace=False)
        lines += [f"LEXEME {name} 1 0.0 1.0 {query} lex SELF <NA>\n" for name in where]
        scores = {name: random.normal(2.5 if name in where else 0) for name in documents}
        scored_terms = "".join(f'<term file="{name}" score="{score:.4f}"/>' for name, score in scores.items())
        detected.append(f'<detected_termlist termid="{query}">{scored_terms}</detected_termlist>')
    (folder / "x.rttm").write_text("".join(lines))
    (folder / "benchmark.stdlist.xml").write_text(f"<stdlist>{''.join(detected)}</stdlist>")


@pytest.mark.parametrize("seed", range(3))
def test_terms_by_query_have_the_same_maximum(seed, tmp_path):
    write_search(tmp_path, seed)
    statistic = TermWeights()(Output(folder=tmp_path, reference=tmp_path))
    exact = mtwv.score(tmp_path / "benchmark.stdlist.xml", tmp_path)
    assert exact.mtwv > 0.2 and len(statistic.groups) == exact.queries == 8
    assert estimate(statistic).value == pytest.approx(100 * exact.mtwv)
    assert 0 < estimate(statistic).standard_error < 40


def write_diarization(folder):
    """Write predictions of three recordings of 2 s, of which two are by the same two voices."""
    (folder / "scoring/predictions").mkdir(parents=True)
    (folder / "frame_shift").write_text("320\n")
    lines = []
    for name, chance, voices in (("r1", 0.9, "ab"), ("r2", 0.45, "ba"), ("r3", 0.6, "ac")):
        values = np.full((100, 2), 0.05, dtype=np.float32)
        values[10:60, 0], values[50:90, 1] = chance, 0.55
        with h5py.File(folder / "scoring/predictions" / f"{name}.h5", "w") as file:
            file.create_dataset("T_hat", data=values)
        for voice, begin, length in ((voices[0], 0.3, 0.9), (voices[1], 1.0, 0.9)):
            lines.append(f"SPEAKER {name} 1 {begin} {length} <NA> <NA> {name}-{voice} <NA> <NA>\n")
    (folder / "rttm").write_text("".join(lines))


def test_diarization_by_pair_of_voices_has_the_lowest_rate(tmp_path):
    write_diarization(tmp_path)
    rttm = tmp_path / "rttm"
    statistic = DiarizationErrors()(Output(folder=tmp_path, reference=rttm))
    lowest = der.best(tmp_path, rttm)
    assert statistic.groups == ("a b", "a c") and statistic.denominators == pytest.approx((3.6, 1.8))
    assert estimate(statistic).value == pytest.approx(100 * lowest.rate) and lowest.rate > 0.05


def test_statistics_are_read_as_they_were_stored():
    random = np.random.default_rng(1)
    stored = [
        Ratio(("a", "b"), (1.0, 2.5), (3.0, 4.0), 1.0),
        VerificationTrials.of_trials(random.normal(size=60), [("a", "a"), ("a", "b"), ("b", "b")] * 20, 10),
        mtwv.TermWeightedValues(("x", "y", "z"), random.normal(size=(3, 4)).round(4)),
    ]
    for statistic in stored:
        again = stored_statistics.from_plain(stored_statistics.to_plain(statistic))
        assert type(again) is type(statistic) and estimate(again) == estimate(statistic)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "median"}, "kind of a statistic is 'median', allowed: ratio, trials, terms"),
        ({"kind": "ratio", "groups": ["a"]}, "statistic of kind ratio is damaged"),
        ({"kind": "terms", "groups": ["a"], "values": ["1 x"]}, "statistic of kind terms is damaged"),
        ({"kind": "terms", "groups": ["a"], "values": ["1", "2"]}, "values have shape"),
    ],
)
def test_damaged_statistics_are_refused(values, message):
    with pytest.raises(ResultError, match=message):
        stored_statistics.from_plain(values)


def test_only_a_recipe_that_asks_for_it_gets_an_extra_metric(tmp_path):
    """SUPERB's ASR reports what it always did."""
    write_pairs(tmp_path, TEXTS, ("test-clean-noLM-hyp.ark", "test-clean-noLM-ref.ark"))
    output = Output("test-clean uer: 40.0\ntest-clean wer: 62.5\n", tmp_path)
    task = find("ASR")
    errors = sum(editdistance.eval(*pair) for pair in TEXTS.values())
    cer = pytest.approx(100 * errors / sum(len(reference) for _, reference in TEXTS.values()))
    assert task.read({"": output}) == {"wer": 62.5}
    assert task.read({"": output}, ["cer"]) == {"wer": 62.5, "cer": cer}
    assert estimate(task.metric("cer").statistic(output)).value == cer
    assert set(task.statistics({"": output})) == {"wer"}
    assert set(task.statistics({"": output}, ["cer"])) == {"wer", "cer"}
    assert task.statistics({"": Output("", tmp_path / "nothing")}) == {}
    assert not task.faults({"wer": 62.5}) and not task.faults({"wer": 62.5, "cer": 40.0})
