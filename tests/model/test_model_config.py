"""Fields of configurations that came later: old files keep their meaning, wrong values are named."""

from __future__ import annotations

import dataclasses

import pytest

from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model import ModelConfig
from tests.helpers.models import SHAPES, tiny

LATER = {"pos_conv_batch_norm", "projection_norm", "layer_norm_eps", "adapter_dim"}


@pytest.mark.parametrize("shape", ["hubert", "large", "wavlm", "data2vec"])
def test_configurations_without_the_later_fields_mean_what_they_meant(shape):
    config = tiny(shape).config
    old = {name: value for name, value in config.to_dict().items() if name not in LATER}
    assert ModelConfig.from_dict(old) == config
    assert config.identity() == old


@pytest.mark.parametrize("shape", ["mhubert", "mms"])
def test_the_later_fields_tell_shapes_apart(shape):
    config = tiny(shape).config
    assert ModelConfig.from_dict(config.to_dict()) == config
    changed = LATER & config.identity().keys()
    assert changed == SHAPES[shape].keys() & LATER != set()
    plain = dataclasses.replace(config, **{name: getattr(ModelConfig(), name) for name in changed})
    assert plain.identity() != config.identity()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter_dim": -1}, "adapter_dim is -1, allowed: integers from 0"),
        ({"adapter_dim": 4}, "adapter_dim is 4, allowed: 0 where layer_norm_first is False"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0, allowed: above 0 and below 1"),
        (
            {"pos_conv_batch_norm": True, "pos_conv_depth": 2},
            "pos_conv_batch_norm is True, allowed: False, as pos_conv_depth is 2",
        ),
        ({"projection_norm": 3}, "projection_norm is 3, expected"),
    ],
)
def test_wrong_values_are_named(changes, message):
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**changes)
    assert message in str(caught.value)


def test_the_shift_of_a_batch_norm_lets_padding_reach_utterances():
    assert ModelConfig().pos_conv_reach == 0
    assert ModelConfig(pos_conv_batch_norm=True).pos_conv_reach == 64
