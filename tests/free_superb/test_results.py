"""Points between two models, and the page of results on FreeSUPERB."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from matplotlib.image import imread

from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.free_superb import results
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.superb.scoring.model_results import MetricValue, ModelResults
from s3prl_dphubert.superb.scoring.relative_points import RelativePoints
from s3prl_dphubert.superb.tasks import find
from tests.helpers.golden import ROOT
from tests.helpers.superb_runs import RECORD

DOCS = ROOT / "docs" / "results"
KS, PR, SF = find("KS"), find("PR"), find("SF")


def model(name, **tasks):
    return ModelResults(
        name, {task: {k: MetricValue(v) for k, v in of.items()} for task, of in tasks.items()}
    )


def test_one_reaches_0_and_the_other_1000():
    between = RelativePoints(
        model("a", KS={"acc": 40.0}, PR={"per": 80.0}, SF={"f1": 50.0, "cer": 60.0}),
        model("b", KS={"acc": 80.0}, PR={"per": 30.0}, SF={"f1": 90.0, "cer": 20.0}),
    )
    for task in (KS, PR, SF):
        assert between.points(between.zero, task) == 0
        assert between.points(between.top, task) == 1000
    one = model("c", KS={"acc": 60.0}, PR={"per": 20.0}, SF={"f1": 60.0, "cer": 30.0})
    assert [between.points(one, task) for task in (KS, PR, SF)] == [500, 1200, 500]
    assert between.points(one, find("IC")) is None


def test_no_points_where_the_two_tell_nothing():
    between = RelativePoints(model("a", KS={"acc": 80.0}, PR={"per": 30.0}), model("b", KS={"acc": 40.0}))
    assert between.task(KS) is None
    assert between.task(PR) is None
    assert between.points(between.top, KS) is None
    assert RelativePoints(between.top, between.top).task(KS) is None


def test_no_points_where_the_two_are_too_close():
    between = RelativePoints(
        model("a", KS={"acc": 40.0}, PR={"per": 80.0}, SF={"f1": 50.0, "cer": 60.0}),
        model("b", KS={"acc": 44.9}, PR={"per": 75.0}, SF={"f1": 90.0, "cer": 59.0}),
        smallest_span=5.0,
    )
    one = model("c", KS={"acc": 0.0}, PR={"per": 70.0}, SF={"f1": 60.0, "cer": 30.0})
    assert between.points(one, KS) is None
    assert between.points(one, PR) == 2000
    assert between.points(one, SF) is None
    assert replace(between, smallest_span=0.0).points(one, KS) == pytest.approx(-8163, abs=1)


def test_the_spread_over_seeds_is_in_points_too():
    between = RelativePoints(model("a", KS={"acc": 40.0}), model("b", KS={"acc": 80.0}))
    one = ModelResults("c", {"KS": {"acc": MetricValue(60.0, 2.0, 3)}})
    assert between.spread(one, KS) == pytest.approx(50)
    assert between.spread(one, PR) == 0


def test_the_page_says_what_there_is_and_what_is_missing(tmp_path):
    for name, size, values in (
        ("fbank", 0, {"KS": {"acc": 40.0}, "IC": {"acc": 30.0}, "ASR": {"wer": 101.0}}),
        ("hubert_mini", 3_000_000, {"KS": {"acc": 80.0}, "IC": {"acc": 20.0}, "ASR": {"wer": 99.5}}),
        ("compressed", 800_000, {"KS": {"acc": 70.0}}),
        ("distilled", 800_000, {"KS": {"acc": 60.0}, "IC": {"acc": 50.0}}),
        ("compressed, int8", 800_000, {"KS": {"acc": 69.25}}),
    ):
        for task, metrics in values.items():
            for seed in (0, 1, 2) if name == "compressed" else (0,):
                moved = {key: value + seed for key, value in metrics.items()}
                made = replace(RECORD, task=task, upstream=name, metrics=moved, seed=seed, parameters=size)
                score_file.write(made, tmp_path / "results" / name / f"{task}{seed}")
    page = tmp_path / "results.md"
    page.write_text(f"# Head\n\n{results.BEGIN}old\n{results.END}\nTail\n")
    results.main([str(tmp_path / "results")])
    text = page.read_text()
    assert text.startswith("# Head\n")
    assert text.endswith("Tail\n")
    assert "old" not in text
    lines = text.splitlines()
    assert "| parameters, M | – | 3.000 | 0.800 | 0.800 |" in lines
    assert "| KS Acc % ↑ | 40.00 | 80.00 | 71.00 ± 1.00 (3) | 60.00 |" in lines
    assert "| KS | 0 | 1000 | 775 ± 25 | 500 |" in lines
    assert not any(line.startswith("| IC | ") for line in lines)
    for middle in ("median", "mean"):
        assert f"| {middle} of 1 | **0** | **1000** | **775** | **500** |" in lines
    assert "- IC gives no points: the teacher is not better than fbank there." in lines
    assert (
        "- ASR gives no points: fbank and the teacher differ by only 1.50 in WER, "
        "less than the 5 from which points are counted." in lines
    )
    assert not any(line.startswith("| ASR | ") for line in lines)
    assert "- compressed has no result yet of ASR, IC." in lines
    assert "- compressed is ahead of distilled in 1 of 1 tasks (KS); median difference +275 points." in lines
    below = lines[lines.index("## compressed in other precisions") :]
    assert below[2:5] == ["|  | fp32 | int8 |", "|---|---|---|", "| KS Acc % ↑ | 70.00 | 69.25 (-0.75) |"]
    assert imread(tmp_path / "results.png").shape[2] == 4


def test_points_need_fbank_and_the_teacher(tmp_path):
    score_file.write(replace(RECORD, upstream="fbank"), tmp_path / "ks")
    with pytest.raises(ConfigError, match="holds no results of hubert_mini"):
        results.Results.read(tmp_path)


def test_the_page_that_ships_is_made_from_the_results_that_ship(tmp_path):
    for name in ("free-superb", "hubert-mini"):
        shutil.copytree(DOCS / name, tmp_path / name)
    shutil.copy(DOCS / "free-superb.md", tmp_path)
    results.main([str(tmp_path / "free-superb")])
    assert (tmp_path / "free-superb.md").read_text() == (DOCS / "free-superb.md").read_text()
