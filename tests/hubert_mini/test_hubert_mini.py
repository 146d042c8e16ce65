"""The teacher that ships, with an honest card."""

from __future__ import annotations

from s3prl_dphubert import load_model
from s3prl_dphubert.free_superb.sources.recordings import SOURCES
from s3prl_dphubert.hubert_mini.masked_prediction import CONFIG
from s3prl_dphubert.hubert_mini.ship import LICENCE, probe_table
from s3prl_dphubert.probe.probe_record import BEST_LAYER, ProbeRecord
from s3prl_dphubert.probe.probe_samples import PHONES
from s3prl_dphubert.utils import resources
from tests.helpers.golden import ROOT


def test_weights_ship_with_an_honest_card():
    folder = resources.find("assets/hubert_mini")
    assert load_model(folder).config == CONFIG
    card = (folder / "README.md").read_text()
    assert all(source.package in card and source.licence in card for source in SOURCES)
    assert (folder / "LICENSE").read_text() == LICENCE
    results = ROOT / "docs" / "results" / "hubert-mini"
    records = [
        ProbeRecord.read(results / f"{name}.probe.json") for name in ("log-mel", "mfcc", "hubert_mini")
    ]
    assert probe_table(records) in card
    floors = [record.score(PHONES, BEST_LAYER).estimate.value for record in records[:2]]
    assert records[2].score(PHONES, BEST_LAYER).estimate.value > max(floors) + 5
