"""Replacement for asteroid: the same numbers as recorded, and errors for what it does not support."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from s3prl_dphubert.compat import asteroid
from s3prl_dphubert.errors import RunError
from tests.helpers.golden import ROOT
from tests.helpers.sg_corpora import TALKERS, cut, level

GOLDEN = json.loads((ROOT / "tests" / "golden" / "separation.json").read_text())
NEEDED = {"stoi": "pystoi", "pesq": "pesq"}


def voices() -> list[np.ndarray]:
    """Three people talking, (T,) each."""
    return [level(cut(speaker, 1)[0], 0.05).astype(np.float32) for speaker in TALKERS[:3]]


def enhanced():
    first, second, _ = voices()
    hiss = np.random.default_rng(0).normal(0, 0.003, first.shape)
    return (first + 0.5 * second)[None], first[None], (first + 0.2 * second + hiss).astype(np.float32)[None]


def separated():
    """Estimates in the other order, one with an echo."""
    first, second, third = voices()
    estimates = [0.3 * first + second + 0.1 * third, first + 0.4 * second + 0.2 * np.roll(first, 40)]
    return (first + second)[None], np.stack([first, second]), np.stack(estimates).astype(np.float32)


@pytest.mark.parametrize("name", asteroid.METRICS)
@pytest.mark.parametrize("case", ["enhanced", "separated"])
def test_metrics_are_those_of_asteroid(case, name):
    if name in NEEDED:
        pytest.importorskip(NEEDED[name], reason="superb_sg is an extra, compiled when it is installed")
    metrics = asteroid.get_metrics(
        *{"enhanced": enhanced, "separated": separated}[case](),
        metrics_list=[name],
        compute_permutation=case == "separated",
    )
    wanted = {key: value for key, value in GOLDEN[case].items() if key in (name, f"input_{name}")}
    assert metrics == pytest.approx(wanted, abs=1e-5)
    assert len(metrics) == 2


def test_interference_is_bss_evals():
    _, sources, estimates = separated()
    ratios = asteroid.interference_ratios(sources, estimates)
    assert ratios == pytest.approx(np.array(GOLDEN["interference"]), abs=1e-6)
    assert asteroid.order(sources, estimates).tolist() == [1, 0]
    assert asteroid.order(sources, estimates[::-1]).tolist() == [0, 1]


def test_silence_and_twins_end_no_training():
    _, sources, estimates = separated()
    estimates[0] = 0
    assert sorted(asteroid.order(sources, estimates).tolist()) == [0, 1]
    metrics = asteroid.get_metrics(sources.sum(0)[None], sources, estimates, 16_000, ["si_sdr"], True)
    assert np.isfinite(list(metrics.values())).all() and metrics["si_sdr"] < -30
    twins = np.stack([sources[0], sources[0]])
    assert sorted(asteroid.order(twins, twins).tolist()) == [0, 1]


def test_scale_and_offset_do_not_count():
    _, (source,), (estimate,) = enhanced()
    ratio = asteroid.si_sdr(source, estimate)
    assert asteroid.si_sdr(3 * source + 0.1, 0.2 * estimate - 0.3) == pytest.approx(ratio, abs=1e-3)


def pairs(estimates, targets, power=2):
    """Mean distance of every pair (B, K, K)."""
    return ((estimates[:, :, None] - targets[:, None]).abs() ** power).mean(-1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_loss_takes_the_order_that_fits_best(count):
    targets = torch.randn(4, count, 50, generator=torch.Generator().manual_seed(0))
    near = (targets.flip(1) + 0.1).requires_grad_()
    wrapped = asteroid.PITLossWrapper(pairs, pit_from="pw_mtx")
    loss = wrapped(near, targets, power=1)
    assert loss.item() == pytest.approx(0.1, abs=1e-6)
    loss.backward()
    assert near.grad.abs().sum() > 0


def test_what_asteroid_can_do_beyond_is_refused():
    with pytest.raises(RunError, match="pit_from is 'perm_avg', allowed: pw_mtx"):
        asteroid.PITLossWrapper(pairs, pit_from="perm_avg")
    with pytest.raises(RunError, match="metrics_list has 'sdr', allowed: si_sdr, stoi, pesq"):
        asteroid.get_metrics(*enhanced(), metrics_list=["sdr"])


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(RunError, match="pip install pystoi pesq; pesq is compiled while it is installed"):
        asteroid.get_metrics(*enhanced(), metrics_list=["pesq"])


@pytest.mark.parametrize(("name", "worst"), [("si_sdr", -80), ("stoi", 0), ("pesq", 1)])
def test_silence_has_the_worst_score(name, worst):
    if name in NEEDED:
        pytest.importorskip(NEEDED[name], reason="superb_sg is an extra, compiled when it is installed")
    mix, clean, _ = enhanced()
    metrics = asteroid.get_metrics(mix, clean, np.zeros_like(clean), metrics_list=[name])
    assert metrics[name] == pytest.approx(worst, abs=1e-3) and metrics[f"input_{name}"] > metrics[name]


def test_pesq_says_what_it_cannot_score():
    pytest.importorskip("pesq", reason="superb_sg is an extra, compiled when it is installed")
    mix, clean, _ = enhanced()
    with pytest.raises(RunError, match="pesq cannot score 99 samples"):
        asteroid.get_metrics(mix[:, :99], clean[:, :99], clean[:, :99], metrics_list=["pesq"])
    with pytest.raises(RunError, match="sample_rate is 22050, allowed for pesq: 8000, 16000"):
        asteroid.get_metrics(mix, clean, mix, 22_050, metrics_list=["pesq"])
