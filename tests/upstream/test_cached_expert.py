"""The upstream with a cache gives what it computed, and stores what it may."""

from __future__ import annotations

import atexit
import os
import re
import sys
from types import ModuleType

import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.errors import ConfigError, RunError
from s3prl_dphubert.upstream import cached_expert, standalone
from s3prl_dphubert.upstream.cached_expert import CachedExpert, CachedOptions, FeatureOptions
from s3prl_dphubert.upstream.entries import dphubert_local
from s3prl_dphubert.upstream.expert import UpstreamExpert
from s3prl_dphubert.upstream.hub_repo import sources
from s3prl_dphubert.upstream.options import Options
from tests.helpers.models import SHAPES, tiny
from tests.upstream.test_expert import waveforms


@pytest.fixture(autouse=True)
def as_s3prl_runs_it(monkeypatch, no_downstream):
    monkeypatch.setattr(atexit, "register", lambda function: function)  # nothing to be said by pytest
    with torch.no_grad():
        yield


def cached(folder, model=None, limit="1GB", **features):
    features = FeatureOptions(str(folder), limit, **features)
    options = CachedOptions(padding="exact", features=features)
    return CachedExpert(model or tiny("hubert"), options).eval()


def same(a, b):
    assert len(a) == len(b) > 2
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def states(expert, wavs=None):
    return expert(waveforms() if wavs is None else wavs)["hidden_states"]


def files(folder):
    """The one model's file of blocks and its index."""
    (blocks,) = folder.glob("*/states.f16")
    return blocks, blocks.with_name("index")


# The upstream


@pytest.mark.parametrize("shape", SHAPES)
def test_first_pass_later_passes_and_other_processes_agree_to_the_bit(tmp_path, shape):
    model = tiny(shape)
    first, other = cached(tmp_path, model), cached(tmp_path, model)
    made = states(first)
    assert same(made, states(first))
    assert same(made, states(other))
    assert (first.statistics.computed, first.statistics.read) == (6, 6)
    assert (other.statistics.computed, other.statistics.read) == (0, 6)
    plain = states(UpstreamExpert(model, Options(padding="exact")).eval())
    for a, b in zip(made, plain, strict=True):
        assert a.dtype == torch.float32
        assert a.is_contiguous()
        torch.testing.assert_close(a, b, atol=1e-6, rtol=2**-10)  # one rounding to fp16


def test_an_utterance_is_the_same_in_any_batch(tmp_path):
    """To the bit, since each is computed alone; the uncached upstream differs in the last bits.

    It runs utterances of one length together, and matrix products of other shapes round otherwise.
    """
    wavs = waveforms((5000, 9000, 5000, 5000, 700))
    batch = states(cached(tmp_path / "batch"), wavs)
    for order in ((4, 2, 0), (1,), (3, 0)):
        reordered = states(cached(tmp_path / f"{order}"), [wavs[index] for index in order])
        for row, index in enumerate(order):
            frames = max(1, (len(wavs[index]) - 400) // 320 + 1)
            assert same([s[row, :frames] for s in reordered], [s[index, :frames] for s in batch])


def test_only_misses_are_computed(tmp_path, monkeypatch):
    runs, compute = [], UpstreamExpert.compute

    def counted(expert, batch, lengths):
        runs.extend(lengths)
        return compute(expert, batch, lengths)

    monkeypatch.setattr(UpstreamExpert, "compute", counted)
    expert, wavs = cached(tmp_path), waveforms()
    states(expert, wavs[:2])
    assert runs == [5000, 400]
    assert same(states(expert, wavs), states(expert, wavs))
    assert len(runs) == 6
    twice = states(expert, [*waveforms((3000,)), *waveforms((3000,))])
    assert len(runs) == 7  # the same utterance twice in a batch
    assert all(torch.equal(state[0], state[1]) for state in twice)


def test_last_frames_are_repeated_as_without_a_cache(tmp_path):
    expert, wavs = cached(tmp_path), waveforms()
    states(expert)
    for state in states(expert):
        for index, wav in enumerate(wavs):
            frames = max(1, (len(wav) - 400) // 320 + 1)
            assert (state[index, frames:] == state[index, frames - 1]).all()


def test_other_weights_and_precisions_never_share(tmp_path):
    model, other = tiny("hubert"), tiny("hubert", seed=1)
    expert = cached(tmp_path, model)
    before = states(expert)
    assert not same(before, states(cached(tmp_path, other)))
    rough = CachedOptions("bf16", "exact", FeatureOptions(str(tmp_path)))
    assert not same(before, states(CachedExpert(model, rough).eval()))
    assert len(list(tmp_path.glob("*/about.json"))) == 3
    # As s3prl does it: weights of a fine-tuned upstream are loaded after it was made.
    expert.load_state_dict(CachedExpert(other, rough).state_dict())
    assert same(states(expert), states(cached(tmp_path, other)))
    assert len(list(tmp_path.glob("*/about.json"))) == 3


def test_an_autocast_around_it_is_a_precision_of_its_own(tmp_path):
    """As s3prl trains with ``fp16: true``, and evaluates without in between."""
    expert, plain = cached(tmp_path), UpstreamExpert(tiny("hubert"), Options(padding="exact")).eval()
    for _ in range(2):
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                for a, b in zip(states(expert), states(plain), strict=True):
                    torch.testing.assert_close(a, b.float(), atol=1e-6, rtol=2**-10)
    assert expert.statistics.computed == expert.statistics.read == 12
    assert len(list(tmp_path.glob("*/about.json"))) == 2


def test_what_fp16_cannot_hold_stays_as_it_is_and_is_not_stored(tmp_path):
    model = tiny("hubert")
    layer = model.encoder.transformer.layers[-1].final_layer_norm
    layer.weight.data[3] = 1e6
    expert = cached(tmp_path, model)
    first, second = states(expert), states(expert)
    assert same(first, second)
    assert all(state.isfinite().all() for state in first)
    assert first[-1].abs().max() > 65504
    assert expert.statistics.stored == expert.statistics.read == 0


def test_the_limit_is_kept_and_told_once(tmp_path, capsys):
    expert, wavs = cached(tmp_path, limit="20KB"), waveforms()
    first = states(expert)
    assert same(first, states(expert))
    assert 0 < expert.statistics.stored < len(wavs)
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 20_000
    states(expert)
    said = capsys.readouterr().err
    assert said.count("no more hidden states are stored: the limit of 2e-05 GB is reached") == 1
    other = cached(tmp_path, tiny("hubert", seed=1), limit="20KB")  # one limit for all models
    states(other)
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 20_000


def test_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    expert = cached(tmp_path)
    states(expert, waveforms((5000,)))
    sizes = [path.stat().st_size for path in files(tmp_path)]
    write = os.write

    def full(file, data):
        if len(data) > 1000:
            write(file, bytes(data[:700]))
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    wanted = states(UpstreamExpert(expert.model, Options(padding="exact")).eval())
    for a, b in zip(states(expert), wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=2**-10)
    assert [path.stat().st_size for path in files(tmp_path)] == sizes
    assert "they cannot be written ([Errno 28] No space left on device)" in capsys.readouterr().err


def test_training_is_refused(tmp_path):
    expert = cached(tmp_path)
    for mode, gradients, said in ((True, False, "training mode"), (False, True, "called with gradients")):
        with (
            torch.set_grad_enabled(gradients),
            pytest.raises(ConfigError, match=f"{said}.*fine-tune \\(-f\\)"),
        ):
            expert.train(mode)(waveforms())
    with torch.inference_mode():
        states(expert.eval())
    assert expert.statistics.stored == 6


def test_downstreams_that_crop_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3prl.downstream.voxceleb1.expert", ModuleType("expert"))
    with pytest.raises(ConfigError, match="voxceleb1 cuts 8 s out of longer utterances at random"):
        states(cached(tmp_path))
    assert states(cached(tmp_path, evaluation=True))


def test_where_some_waveforms_are_random_the_second_sight_stores(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3prl.downstream.speech_commands.expert", ModuleType("expert"))
    expert = cached(tmp_path)
    counts = []
    for _ in range(3):
        states(expert)
        counts.append((expert.statistics.stored, expert.statistics.read))
    assert counts == [(0, 0), (6, 0), (6, 6)]


def test_storing_stops_where_waveforms_stay_new(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cached_expert, "PERIOD", 8)
    generator, expert, again = torch.Generator().manual_seed(0), cached(tmp_path), cached(tmp_path / "again")
    fixed = waveforms((500, 600, 700, 800))
    for _ in range(8):
        states(expert, [torch.randn(500, generator=generator) for _ in range(4)])
        states(again, fixed)
    assert expert.statistics.stored == 16  # two periods: a first epoch may be as long as one
    assert again.statistics.stored == 4
    said = capsys.readouterr().err
    assert said.count("100 % of the last 8 waveforms were new, as if cropped at random") == 1


def test_it_tells_what_it_brought(tmp_path, capsys):
    expert = cached(tmp_path)
    states(expert, waveforms((16_000,)))
    expert.statistics.report()
    assert "were read" not in capsys.readouterr().err  # s3prl's first look is no news
    states(expert)
    states(expert)
    expert.statistics.report()
    said = capsys.readouterr().err
    assert "hidden states of 6 utterances were read and of 7 computed (7 stored)" in said
    assert re.search(r"[\d.]+ s instead of [\d.]+ s, speed-up of the upstream [\d.]+$", said)


# Options


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ("somewhere", "features is 'somewhere', expected a mapping or null"),
        ({"limit": 3}, "features.cache is missing"),
        (
            {"cache": "x", "limit": "much"},
            "features.limit is 'much', allowed: bytes, or a size such as 500MB",
        ),
        ({"cache": "x", "limit": True, "evaluation": 1}, "limit is True.*features.evaluation is 1"),
        ({"cache": "x", "size": 3}, "features.size: unknown field; available: cache, limit, evaluation"),
        ({"cache": "x"}, "padding is 'batch', allowed with features: exact"),
    ],
)
def test_wrong_options(features, said):
    with pytest.raises(ConfigError, match=said):
        CachedOptions.read(None, {"features": features})


@pytest.mark.parametrize(
    ("limit", "size"), [("100GB", 10**11), ("1.5 tb", 15 * 10**11), ("500M", 5 * 10**8), (7, 7), ("8B", 8)]
)
def test_limits(limit, size):
    assert FeatureOptions("x", limit).bytes == size


def test_options_of_a_file_make_a_cached_upstream(tmp_path):
    save_model(tiny("hubert"), tmp_path / "model")
    file = tmp_path / "options.yaml"
    file.write_text(f"padding: exact\nfeatures: {{cache: {tmp_path / 'cache'}, limit: 1GB}}\n")
    expert = dphubert_local(tmp_path / "model", file).eval()
    assert isinstance(expert, CachedExpert)
    assert same(states(expert), states(dphubert_local(tmp_path / "model", file).eval()))
    assert type(dphubert_local(tmp_path / "model")) is UpstreamExpert
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunError, match=r"features.cache is .*file, cannot be written"):
        states(cached(blocked))


def test_what_export_hub_ships_knows_nothing_of_it(tmp_path):
    with pytest.raises(ConfigError, match=r"features: unknown field; available: precision, padding$"):
        standalone.StandaloneExpert(tmp_path / "model.pt", features={"cache": "x"}, padding="exact")
    assert "upstream/cached_expert.py" not in sources()
