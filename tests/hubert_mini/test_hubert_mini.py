"""The teacher that ships, with an honest card."""

from __future__ import annotations

import json

from s3prl_dphubert import load_model
from s3prl_dphubert.free_superb.sources.recordings import SOURCES
from s3prl_dphubert.utils import resources


def test_weights_ship_with_an_honest_card():
    folder = resources.find("assets/hubert_mini")
    load_model(folder)
    card = (folder / "README.md").read_text()
    assert all(source.package in card and source.licence in card for source in SOURCES)
    probe = json.loads((folder / "probe.json").read_text())
    for name, accuracy in probe["trained"].items():
        assert f"| {name} | {accuracy} % |" in card
    assert max(probe["trained"].values()) > probe["trained"]["mfcc+deltas"]
