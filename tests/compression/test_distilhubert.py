"""The shipped DistilHuBERT configuration, on a tiny teacher."""

from __future__ import annotations

import json

import pytest

from s3prl_dphubert import compress, load_model
from s3prl_dphubert.compression.compress_config import CompressConfig
from tests.helpers.compression_runs import STAGE, make_place, settings


def test_the_shipped_configuration_trains(tmp_path):
    """Two layers without a LayerNorm of features, whose heads learn; the result loads without them."""
    place = make_place(tmp_path)
    config = CompressConfig.create(
        "distilhubert",
        teacher=place / "teacher",
        device="cpu",
        data=settings(place)["data"],
        objective={"groups": [[1], [2], [3]]},
        stage2=STAGE | {"updates": 8, "precision": "fp32", "lr": 3e-3},
    )
    stage2 = config.stage2
    assert (stage2.clip, stage2.betas, stage2.eps, stage2.weight_decay) == (5.0, (0.9, 0.98), 1e-6, 0.01)
    assert (stage2.feature_grad_mult, stage2.teacher_precision) == (0.1, "fp32")
    compress(config, tmp_path / "run")
    shape = load_model(tmp_path / "run" / "model").config
    assert (shape.num_layers, shape.projection_norm) == (2, False)
    assert (shape.projection_dropout, shape.ffn_dropout, shape.dropout) == (0.0, 0.1, 0.1)
    valid = json.loads((tmp_path / "run" / "results.json").read_text())["valid"]
    assert set(valid) == {"student", "stage2"}
    assert valid["stage2"]["loss"] < valid["student"]["loss"]
    assert valid["stage2"]["loss"] == pytest.approx(valid["stage2"]["l1"] + valid["stage2"]["cos"])
