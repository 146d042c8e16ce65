"""SUPERB scores and ranks against published ones."""

from __future__ import annotations

import pytest

from s3prl_dphubert.cli import main
from s3prl_dphubert.superb.scoring import points
from s3prl_dphubert.superb.scoring.model_results import choose, published
from s3prl_dphubert.superb.tasks import all_tasks, core_tasks, find

SCORES = {
    "HuBERT Base": 941,
    "WavLM Base+": 1106,
    "DPHuBERT": 866,
    "DPWavLM": 926,
    "DistilHuBERT": 717,
    "FitHuBERT": 685,
    "12-Layer Half": 807,
    "3-Layer One": 772,
    "LightHuBERT Small": 901,
    "ARMHuBERT": 827,
    "STaRHuBERT": 887,
    "STaRHuBERT-L": 896,
    "STaRHuBERT, 100 h": 832,
    "ARMHuBERT-S": 829,
    "ARMwavLM-S": 852,
    "MaskHuBERT": 837,
    "WavLM Base": 1019,
    "WavLM Large": 1145,
    "data2vec Base": 884,
}
"""As published beside the results of each task."""
DPHUBERT = "ks=96.36 ic=97.92 pr=9.67 asr=10.47 er=63.16 qbe=6.93 sf=86.86/28.26 sid=76.83 asv=5.84 sd=5.92"


@pytest.mark.parametrize("name", SCORES)
def test_published_scores_are_reproduced(name):
    assert round(choose(name, ()).score()) == SCORES[name]


def test_published_values_are_not_rounded():
    """MACs as published, in G; DPHuBERT of 100 hours with the score of its values, not the one beside."""
    macs = {model.name: model.macs / 1e9 for model in published() if model.macs}
    assert (macs["STaRHuBERT"], macs["STaRHuBERT-L"], macs["LightHuBERT Small"]) == (463.5, 511.9, 860.7)
    assert (macs["ARMHuBERT-S"], macs["STaRHuBERT, 100 h"]) == (449.4, 463.5)
    assert round(choose("DPHuBERT, 100 h", ()).score()) == 821
    assert len(SCORES) == 19


def test_reference_points():
    rows = {model.name: model for model in published()}
    assert len(rows) == 24
    assert rows["FBANK"].score() == pytest.approx(0, abs=1e-6)
    assert all(rows["FBANK"].points(task) == pytest.approx(0, abs=1e-6) for task in core_tasks())
    assert rows["HuBERT Large"].points(find("ASR")) == pytest.approx(1000)
    assert rows["HuBERT Large"].points(find("SE")) == pytest.approx(1000)
    assert points.points(find("VC"), {"VC": {"mcd": 7.0}}) is None
    assert all(set(model.results) <= {task.name for task in all_tasks()} for model in rows.values())


def test_slot_filling_averages_its_metrics_first():
    """F1 89.81 is 1000 points and CER 52.94 is 0: 500; both count as one task of ten."""
    metrics = {"SF": {"f1": 89.81, "cer": 52.94}}
    assert points.points(find("SF"), metrics) == pytest.approx(500)
    del metrics["SF"]["cer"]
    assert points.points(find("SF"), metrics) is None


def test_points_are_not_clipped():
    assert points.points(find("PR"), {"PR": {"per": 90.0}}) < 0
    assert points.points(find("PR"), {"PR": {"per": 0.0}}) > 1000


def test_without_a_task_there_is_no_score():
    means = {task: dict(of) for task, of in choose("DPHuBERT", ()).means.items()}
    del means["QbE"], means["SF"]["f1"]
    assert points.score(means) is None
    assert points.missing(means) == ["QbE", "SF"]


def test_ranks_by_hand():
    """Of three models only a and b have results, of PR and SF.

    PER 5 < 6: a beats b, so 1 and 0. F1 80, 80: nobody beats; CER 30 > 20: b beats a. Inside SF
    a has (0 + 0) / 2 and b (0 + 1) / 2; over ten tasks a has 1 / 10 and b 0.5 / 10. c has 0.
    """
    a = {"PR": {"per": 5.0}, "SF": {"f1": 80.0, "cer": 30.0}}
    b = {"PR": {"per": 6.0}, "SF": {"f1": 80.0, "cer": 20.0}}
    assert points.ranks([a, b, {}]) == pytest.approx([0.1, 0.05, 0.0])
    assert points.ranks([a]) == [0.0]


def test_score_command(capsys):
    assert main(["superb", "score", *DPHUBERT.split()]) == 0
    shown = capsys.readouterr().out
    assert "SUPERB score 866 (866.23)" in shown
    assert "F1 86.86 %, CER 28.26 %" in shown
    assert len([line for line in shown.splitlines() if " points " in line]) == 10


def test_score_command_names_what_is_missing(capsys):
    assert main(["superb", "score", "KS=96.36", "sf.f1=80", "se=2.55/93.6"]) == 0
    shown = capsys.readouterr().out
    assert "994.57 points" in shown
    assert "no SUPERB score: PR, ASR, QbE, SID, ASV, SD, ER, IC, SF missing" in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ks=101", "KS acc is 101.0, allowed: a number in %, 0 to 100"),
        ("pr=-1", "PR per is -1.0, allowed: a number in %, 0 or more"),
        ("pr=nan", "PR per is nan"),
        ("pr=few", "PR is 'few', allowed: pr=PER"),
        ("sf=80", "SF has 1 values, allowed: sf=F1/CER"),
        ("sf.der=80", "SF has no metric 'der', allowed: f1, cer"),
        ("xx=1", "unknown task 'xx'; available: PR, ASR"),
        ("ks", "'ks' is not TASK=VALUE"),
    ],
)
def test_wrong_results_are_named_with_all_units(given, message, capsys):
    assert main(["superb", "score", given, "er=-5"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "ER acc is -5.0" in error
    assert "slot filling: F1 in %, CER in %" in error
    assert main(["superb", "score", "ks=90", "ks=91"]) == 2
    assert "KS acc is given twice" in capsys.readouterr().err


def test_fractions_get_a_hint(capsys):
    """A KS of 0.9636 % is -731 points; an EER of 0.9 % is possible, too, so that nothing is refused."""
    assert (
        main(["superb", "score", "ks=0.9636", "asv=0.0511", "sf=88.5/0.252", "pr=5.41", "se=2.55/0.936"]) == 0
    )
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "hint: KS acc is 0.9636 %; is it a fraction, 96.36 %?",
        "hint: ASV eer is 0.0511 %; is it a fraction, 5.11 %?",
        "hint: SF cer is 0.252 %; is it a fraction, 25.2 %?",
        "hint: SE stoi is 0.936 %; is it a fraction, 93.6 %?",
    ]
    assert "KS        -731.21 points" in shown.out
    assert main(["superb", "score", *DPHUBERT.split()]) == 0
    assert capsys.readouterr().err == ""
