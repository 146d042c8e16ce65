"""Targets of fixed crops that are kept on disk."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.compression.pipeline import compress
from s3prl_dphubert.distillation.target_cache import TargetCache
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.utils.config_io import from_dict
from tests.helpers.compression_runs import distillation, make_place, read_config, settings, stream_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


def fixed(place):
    config = read_config(place)
    batch = replace(config.data.batch, crops="fixed")
    return replace(config, data=replace(config.data, batch=batch), cache_teacher=True)


def test_fixed_crops_come_again_in_another_order(place):
    stream = stream_of(place, crops="fixed")
    count = len(stream.plan(0))
    epochs = [[stream[index + epoch * count] for index in range(count)] for epoch in range(3)]
    assert count > 2
    known = {batch.keys: batch.waveforms for batch in epochs[0]}
    assert sum(len(keys) for keys in known) == len({key for keys in known for key in keys}) == 12
    orders = {tuple(batch.keys for batch in epoch) for epoch in epochs}
    assert len(orders) == 3
    for batch in epochs[1] + epochs[2]:
        assert torch.equal(batch.waveforms, known[batch.keys])
    assert stream_of(place)[0].keys == ()


def test_targets_are_found_rounded_as_they_were_computed(place, tmp_path):
    task, batch = distillation(place), stream_of(place, crops="fixed")[0]
    plain = task.cached_targets(batch)
    task.cache = TargetCache(tmp_path, (0, 1, 3), 32, 1.0)
    first, second = task.cached_targets(batch), task.cached_targets(batch)
    assert (task.cache.misses, task.cache.hits) == (len(batch.keys), len(batch.keys))
    assert list(first) == list(second) == [0, 1, 3]
    for layer in first:
        assert torch.equal(first[layer], second[layer])
        assert not torch.equal(first[layer], plain[layer])
        torch.testing.assert_close(first[layer], plain[layer], atol=2e-3, rtol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):  # another teacher
        task.cached_targets(batch)
    assert task.cache.misses == 2 * len(batch.keys)


@pytest.mark.slow
def test_a_run_equals_one_that_finds_everything(place, tmp_path):
    """A second run that begins with the targets of the first ends with the same weights."""
    compress(fixed(place), tmp_path / "first")
    targets = tmp_path / "first" / "targets"
    (tmp_path / "second").mkdir()
    targets.rename(tmp_path / "targets")
    assert (tmp_path / "targets" / "fp32" / "states.f16").stat().st_size > 10_000
    computed = []
    real = TargetCache.get

    def get(self, keys, precision, compute):
        self.folder = tmp_path / "targets"
        return real(self, keys, precision, lambda: computed.append(1) or compute())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TargetCache, "get", get)
        compress(fixed(place), tmp_path / "second")
    assert computed == []
    models = [load_model(tmp_path / name / "model").state_dict() for name in ("first", "second")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_beyond_its_limit_it_computes(place, tmp_path, caplog):
    task, batch = distillation(place), stream_of(place, crops="fixed")[0]
    task.cache = TargetCache(tmp_path, (0, 1, 3), 32, 1e-8)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            task.cached_targets(batch)
    assert task.cache.hits == 0
    (message,) = caplog.messages
    assert message.startswith("cache_teacher: the limit of 1e-08 GB is reached")


def test_random_crops_are_refused(place):
    values = settings(place) | {"cache_teacher": True, "cache_gigabytes": 0}
    with pytest.raises(ConfigError, match=r"crops is random, allowed: fixed; .*cache_gigabytes is 0"):
        from_dict(type(read_config(place)), values)
    values["data"]["batch"]["crops"] = "some"
    with pytest.raises(ConfigError, match="crops is 'some', allowed: random, fixed"):
        from_dict(type(read_config(place)), values)
