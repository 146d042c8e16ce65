"""Layer weights in checkpoints of s3prl's runner."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.superb.run.experiment import layer_weights


def test_layer_weights_are_those_of_the_featurizer_after_the_softmax(tmp_path):
    logits = torch.tensor([0.0, 1.0, -1.0])
    torch.save({"Featurizer": {"weights": torch.nn.Parameter(logits)}, "Step": 3}, tmp_path / "a.ckpt")
    assert layer_weights(tmp_path / "a.ckpt") == pytest.approx((0.24473, 0.66524, 0.09003), abs=1e-5)


@pytest.mark.parametrize("states", [{"Step": 3}, {"Featurizer": {}}])
def test_upstreams_with_one_hidden_state_have_none(tmp_path, states):
    torch.save(states, tmp_path / "a.ckpt")
    assert layer_weights(tmp_path / "a.ckpt") == ()
