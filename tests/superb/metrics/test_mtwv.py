"""The maximum term weighted value: by hand, and against NIST's scorer."""

from __future__ import annotations

import math
import random

import pytest

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.metrics.mtwv import BETA, Score, Truth, maximum, read_detections, read_truth, score
from s3prl_dphubert.superb.metrics.parsers import Output
from s3prl_dphubert.superb.tasks import find


def truth(documents, **occurrences):
    return Truth(tuple(documents), {query: frozenset(where) for query, where in occurrences.items()})


def trials(**scores):
    return {(query, document): value for query, of in scores.items() for document, value in of.items()}


def test_by_hand():
    """beta = (1 - 0.0008) / (100 x 0.0008) = 0.9992 / 0.08 = 12.49.

    x is in a and b, y in c, z nowhere (left out); 4 documents. At 0.8, x finds a and misses b
    (P_miss 1/2), y finds c, no false alarm: TWV = 1 - (1/2 + 0) / 2 = 0.75. At 0.5, x also
    detects c: P_fa = 1/2 costs 12.49 / 2 / 2 = 3.12 more. At 0.9 y misses: 1 - (1/2 + 1) / 2.
    """
    assert round(BETA, 9) == 12.49
    where = truth("abcd", x="ab", y="c", z="")
    given = trials(
        x={"a": 0.9, "b": 0.4, "c": 0.5, "d": 0.1},
        y={"a": 0.2, "b": 0.1, "c": 0.8, "d": 0.3},
        z={"a": 99.0},  # of a query that occurs nowhere: neither counted nor unknown
    )
    best = maximum(given, where)
    assert best == Score(pytest.approx(0.75), 0.8, queries=2, unknown=0)


def test_a_false_alarm_can_be_worth_it():
    """200 documents, 2 true ones at 0.9 and 0.7, a false one at 0.8.

    At 0.9: 1 - 1/2 = 0.5. At 0.7: 1 - 12.49 / 198 = 0.936919.
    """
    documents = [f"d{n}" for n in range(200)]
    given = trials(x={document: 0.0 for document in documents} | {"d0": 0.9, "d1": 0.8, "d2": 0.7})
    best = maximum(given, truth(documents, x=["d0", "d2"]))
    assert best.mtwv == pytest.approx(0.936919, abs=1e-6)
    assert best.threshold == 0.7


def test_equal_scores_are_detected_together():
    """The true and a false document share the score 1: 1 - 12.49 / 3 < 0, so nothing is detected."""
    best = maximum(trials(x={"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}), truth("abcd", x="a"))
    assert best == Score(0.0, math.inf, queries=1, unknown=0)


def test_what_was_not_searched_counts_as_missed():
    """Of two queries one was searched, and found: 1 - (0 + 1) / 2."""
    best = maximum(trials(x={"a": 3.0, "b": -1.0}, other={"a": 9.0}), truth("abc", x="a", y="b"))
    assert best == Score(pytest.approx(0.5), 3.0, queries=2, unknown=1)


def test_a_query_in_every_document_has_no_false_alarms():
    assert maximum(trials(x={"a": 1.0, "b": 0.5}), truth("ab", x="ab")).mtwv == pytest.approx(1.0)


def test_detections_of_another_set_are_refused():
    with pytest.raises(ResultError, match="no query of the detections occurs"):
        maximum(trials(dev={"a": 1.0}), truth("ab", x="a"))


def case(seed: int, queries: int = 8, documents: int = 60):
    draw = random.Random(seed)
    names = [f"d{n:03d}" for n in range(documents)]
    where = {
        f"q{n}": sorted(draw.sample(names, draw.choice([0, 1, 2, 5, 9]) if n else 4)) for n in range(queries)
    }
    scores = {(q, d): round(draw.gauss(2.5 if d in where[q] else 0, 1), 4) for q in where for d in names}
    return names, where, scores


def write(folder, names, where, scores):
    """A folder of ground truth and a list of detections, as QUESST and s3prl write them."""
    excerpts = "".join(f'<excerpt audio_filename="{n}.wav" channel="1" tbeg="0" dur="1"/>\n' for n in names)
    terms = "".join(f'<term termid="{q}"><termtext>{q}</termtext></term>\n' for q in where)
    lines = [f"LEXEME {d} 1 0.000 1.000 {q} lex SELF <NA>\n" for q in where for d in where[q]]
    (folder / "x.ecf.xml").write_text(f'<?xml version="1.0"?>\n<ecf version="1">\n{excerpts}</ecf>\n')
    (folder / "x.tlist.xml").write_text(f"<termlist>\n{terms}</termlist>\n")
    (folder / "x.rttm").write_text("SPEAKER d000 1 0 1 <NA> <NA> SELF <NA>\n" + "".join(lines))
    detected = []
    for query in where:
        scored_terms = "".join(
            f'<term file="{d}" channel="1" score="{scores[query, d]:.4f}" decision="NO"/>' for d in names
        )
        detected.append(
            f'<detected_termlist termid="{query}" oov_term_count="1">{scored_terms}</detected_termlist>'
        )
    (folder / "benchmark.stdlist.xml").write_text(f"<stdlist>{''.join(detected)}</stdlist>")


NIST = {1: (0.6205, 2.3645), 2: (0.3756, 2.23), 3: (0.5669, 2.2311), 4: (0.4048, 2.5859)}
"""Maximum value and its decision score by NIST's STDEval 0.7 with -k 1 -K 100 -p 0.0008 on the
cases above, where each document lasts 1 s, so that its trials per second are ours per document."""


@pytest.mark.parametrize("seed", NIST)
def test_the_same_as_nists_scorer(seed, tmp_path):
    write(tmp_path, *case(seed))
    best = score(tmp_path / "benchmark.stdlist.xml", tmp_path)
    assert (round(best.mtwv, 4), best.threshold) == NIST[seed]
    read = find("QbE").read({"": Output(folder=tmp_path, reference=tmp_path)})
    assert read == pytest.approx({"mtwv": 100 * best.mtwv})


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(ResultError, match=r"holds 0 files \*\.ecf\.xml, allowed: one"):
        read_truth(tmp_path)
    write(tmp_path, *case(1))
    assert len(read_truth(tmp_path).documents) == 60
    (tmp_path / "x.rttm").write_text("LEXEME nowhere 1 0 1 q0 lex SELF <NA>\n")
    with pytest.raises(ResultError, match=r"line 1: document nowhere is not in the \.ecf"):
        read_truth(tmp_path)
    (tmp_path / "x.rttm").write_text("")
    with pytest.raises(ResultError, match="has a LEXEME line"):
        read_truth(tmp_path)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<stdlist>", "not XML"),
        ("<stdlist></stdlist>", "holds no trial"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><stdlist/>', "document type declaration"),
        ('<s><detected_termlist termid="q"><term file="d" score="nan"/></detected_termlist></s>', "'nan'"),
        ('<s><detected_termlist termid="q"><term score="1"/></detected_termlist></s>', "file is missing"),
        (
            '<s><detected_termlist termid="q"><term file="d" score="1"/><term file="d.wav" score="2"/>'
            "</detected_termlist></s>",
            "document d is there twice",
        ),
    ],
)
def test_damaged_detections_are_refused(xml, message):
    with pytest.raises(ResultError) as caught:
        read_detections(xml.encode())
    assert message in str(caught.value)
