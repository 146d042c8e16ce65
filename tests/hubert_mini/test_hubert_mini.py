"""The teacher that ships, with an honest card."""

from __future__ import annotations

import json

import pytest

from s3prl_dphubert import load_model
from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.free_superb.sources.recordings import SOURCES
from s3prl_dphubert.hubert_mini import curves
from s3prl_dphubert.hubert_mini.masked_prediction import CONFIG
from s3prl_dphubert.hubert_mini.ship import LICENCE, probe_table
from s3prl_dphubert.probe.comparison import orders
from s3prl_dphubert.probe.probe_record import BEST_LAYER, ProbeRecord
from s3prl_dphubert.probe.probe_samples import PHONES
from s3prl_dphubert.utils import resources
from tests.helpers.golden import ROOT

RESULTS = ROOT / "docs" / "results" / "hubert-mini"


def test_weights_ship_with_an_honest_card():
    folder = resources.find("assets/hubert_mini")
    assert load_model(folder).config == CONFIG
    card = (folder / "README.md").read_text()
    assert all(source.package in card and source.licence in card for source in SOURCES)
    assert (folder / "LICENSE").read_text() == LICENCE
    records = [
        ProbeRecord.read(RESULTS / f"{name}.probe.json")
        for name in ("log-mel", "mfcc", "random", "hubert_mini")
    ]
    assert probe_table(records) in card
    floors = [record.score(PHONES, BEST_LAYER).estimate.value for record in records[:3]]
    assert records[3].score(PHONES, BEST_LAYER).estimate.value > max(floors) + 15


def test_curves_show_all_runs_and_probes():
    training, *probes = curves.plot(RESULTS).axes
    rows = [
        [json.loads(line) for line in (RESULTS / f"pretraining-{number}.jsonl").read_text().splitlines()]
        for number in (1, 2, 3)
    ]
    masked = [line.get_xydata() for line in training.lines if line.get_color() == curves.COUNTS[2]][:3]
    assert masked[0].tolist() == [[row["update"], row["masked"]] for row in rows[0]]
    assert masked[2][-1].tolist() == [sum(each[-1]["update"] for each in rows), rows[2][-1]["masked"]]
    assert [axes.get_title(loc="left").partition(",")[0] for axes in probes] == [
        "Words", "Phones", "Speakers", "Verification",
    ]  # fmt: skip
    assert RESULTS.with_suffix(".png").is_file()


def test_curves_need_a_log(tmp_path):
    with pytest.raises(ResultError, match=r"holds no pretraining-N\.jsonl"):
        curves.plot(tmp_path)


def test_phones_are_best_in_the_last_layers_and_voices_in_the_first():
    """As in HuBERT Base; each run and its states on the way are better than those before them."""
    random, early, first, last = (
        ProbeRecord.read(RESULTS / f"{name}.probe.json")
        for name in ("random", "early", "run-1", "hubert_mini")
    )
    accuracies = [value for value, _ in last.curves[PHONES]]
    assert accuracies.index(max(accuracies)) >= 9 and max(accuracies) > accuracies[2] + 5
    speakers = [value for value, _ in last.curves["speakers"]]
    assert max(speakers) == max(speakers[:5])
    assert all(order.is_valid for order in orders([random, early, first, last]))
