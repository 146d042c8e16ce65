"""The cost model of docs/results/scaling.md."""

from __future__ import annotations

import re

import pytest
import torch

from s3prl_dphubert.bench import scaling
from s3prl_dphubert.bench.scaling import MeasuredUpdate, activations, operations, page
from s3prl_dphubert.model import ModelConfig
from s3prl_dphubert.model.cost import macs
from tests.helpers.golden import ROOT
from tests.helpers.models import FAMILIES, tiny

FOUND = [MeasuredUpdate("small", 4, 4.0, 2.0, 1.0, 5e8), MeasuredUpdate("large", 2, 4.0, 5.0, 4.0, 6e8)]


def test_operations_are_those_of_a_teacher_and_three_students():
    config = ModelConfig()
    assert operations(config, 1.0) == 8 * macs(config, 16_000)
    assert operations(config, 1.0, 0.5) == 5 * macs(config, 16_000)
    gated = operations(config, 1.0, gates=True)
    assert 0.85 < gated / operations(config, 1.0) < 0.97  # a sixth of the feed-forward units is closed
    assert FAMILIES["hubert_large"] == scaling.LARGE


def test_activations_are_those_that_layers_put_out():
    model, seen = tiny("hubert"), []
    for layer in model.feature_extractor.conv_layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
    hidden, _ = model.extract_features(torch.randn(1, 8000))
    frames, config = hidden[0].shape[1], model.config
    rest = 3 * (frames * (8 * 32 + 2 * 24) + 4 * frames**2)
    assert activations(config, 0.5) == sum(seen) + rest


def test_the_published_run_sets_the_rate():
    hours = {row.split(" | ")[0][2:]: float(row.split(" | ")[2]) for row in list(scaling.gpu_rows((1,)))[2:]}
    assert hours["HuBERT Base"] == scaling.PUBLISHED_HOURS
    assert 50 < hours["HuBERT Large"] < 75
    rows = list(scaling.gpu_rows((1, 4)))
    assert rows[2].split(" | ")[6] == "0.00 GB"  # one GPU tells nobody
    assert rows[3].split(" | ")[6] == "0.57 GB"  # 3/2 of 94.4 M float32 numbers


def test_the_model_foretells_the_second_size_from_the_first():
    rows = list(scaling.check_rows(FOUND))
    assert rows[2].endswith("| 2.00 | 1.00 | 2.00 | 1.00 (fitted) |")
    assert rows[3].endswith("| 5.00 | 4.00 | 5.20 | 1.04 |")


def test_the_page_in_docs_is_what_the_command_writes():
    """All but what was measured."""
    text = (ROOT / "docs" / "results" / "scaling.md").read_text()
    hide = re.compile(r"(?s)## Checked here.*?## GPU hours")
    assert hide.sub("", text) == hide.sub("", page(FOUND))
    measured = re.search(r"\| HuBERT Base \| 2 × 4 s .*\| (\S+) \|", text)
    assert float(measured[1]) == pytest.approx(1, abs=0.35)
