import numpy as np
import pytest
import torch

from s3prl_dphubert.probe import layer_weights
from s3prl_dphubert.probe.discriminant import ClassMoments
from s3prl_dphubert.probe.layer_weights import LayerBasis, LayerMoments, learn, learn_all, separation
from s3prl_dphubert.probe.pooled_states import PooledStates

CLASSES, COUNT, WIDTH = 4, 800, 10


def labelled(noises, seed=0, scales=None):
    """Layers of the same class means under independent noise, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(CLASSES, size=COUNT)
    signal = random.normal(size=(CLASSES, WIDTH))[labels]
    layers = [signal + noise * random.normal(size=signal.shape) for noise in noises]
    scaled = [layer * scale for layer, scale in zip(layers, scales or [1] * len(layers), strict=True)]
    return PooledStates(np.stack(scaled).astype(np.float16)), labels


def moments(states, labels, basis=None):
    rows = np.arange(len(labels))
    return LayerMoments.of(states, basis or LayerBasis.of(states, rows), rows, labels, CLASSES)


def test_a_layer_without_information_gets_no_weight():
    learnt = learn(moments(*labelled([1.0, 50.0, 50.0])), 0.01)
    assert learnt.weights[0] > 0.9
    assert learnt.converged


def test_layers_of_equal_worth_are_averaged():
    learnt = learn(moments(*labelled([1.0, 1.0, 1.0])), 0.01)
    assert learnt.weights.numpy() == pytest.approx(1 / 3, abs=0.05)
    single = separation(moments(*labelled([1.0, 1.0, 1.0])).mixed(torch.tensor([1.0, 0, 0])), 0.01)
    assert learnt.separation > 1.15 * single


def test_the_result_is_a_maximum():
    sums = moments(*labelled([0.8, 1.0, 2.0]))
    learnt = learn(sums, 0.01)
    for layer in range(3):
        for shift in (-0.02, 0.02):
            other = learnt.weights.clone()
            other[layer] += shift
            assert separation(sums.mixed(other / other.sum()), 0.01) < learnt.separation


def test_the_size_of_a_layer_does_not_matter():
    plain = learn(moments(*labelled([0.8, 1.0, 2.0])), 0.01)
    scaled = learn(moments(*labelled([0.8, 1.0, 2.0], scales=[1, 30, 0.2])), 0.01)
    assert scaled.weights.numpy() == pytest.approx(plain.weights.numpy(), abs=0.01)


def test_moments_of_a_mixture_are_those_of_the_mixed_samples():
    states, labels = labelled([0.8, 1.0, 2.0])
    rows, weights = np.arange(COUNT), torch.tensor([0.2, 0.5, 0.3])
    basis = LayerBasis.of(states, rows)
    direct = ClassMoments.of(basis.mix(states, rows, weights), torch.from_numpy(labels), CLASSES)
    mixed = moments(states, labels, basis).mixed(weights)
    for name in ("counts", "sums", "gram"):
        assert torch.allclose(getattr(direct, name), getattr(mixed, name), rtol=1e-3, atol=1e-2)


def test_separation_is_the_explained_variance_of_least_squares():
    states, labels = labelled([1.0])
    x = states.values[0].astype(float)
    x -= x.mean(0)
    shares = np.bincount(labels) / COUNT
    indicators = np.eye(CLASSES)[labels] / np.sqrt(shares) - np.sqrt(shares)
    fitted = x @ np.linalg.lstsq(x, indicators, rcond=None)[0]
    explained = (fitted**2).sum() / COUNT / (CLASSES - 1)
    sums = ClassMoments.of(torch.from_numpy(x).float(), torch.from_numpy(labels), CLASSES)
    assert float(separation(sums, 0.0)) == pytest.approx(explained, rel=1e-3)


def test_parts_and_blocks_add_up(monkeypatch):
    states, labels = labelled([0.8, 1.0])
    rows = np.arange(COUNT)
    basis = LayerBasis.of(states, rows)
    whole = LayerMoments.of(states, basis, rows, labels, CLASSES)
    monkeypatch.setattr("s3prl_dphubert.probe.pooled_states.BLOCK", 4 * 2 * WIDTH * 7)
    first, second = (LayerMoments.of(states, basis, r, labels[r], CLASSES) for r in (rows[:300], rows[300:]))
    assert torch.allclose((first + second).gram, whole.gram, rtol=1e-4, atol=1e-2)


def test_wide_layers_are_projected_onto_common_directions(monkeypatch):
    monkeypatch.setattr(layer_weights, "WIDEST", 12)
    states, labels = labelled([1.0, 1.0, 50.0])
    basis = LayerBasis.of(states, np.arange(COUNT))
    sums = moments(states, labels, basis)
    assert basis.directions.shape == (WIDTH, 4)
    assert sums.gram.shape == (3, 4, 3, 4)
    assert learn(sums, 0.01).weights[2] < 0.1


def test_one_layer_needs_no_weights():
    learnt = learn(moments(*labelled([1.0])), 0.01)
    assert (learnt.weights.tolist(), learnt.steps, learnt.converged) == ([1.0], 0, True)


def test_a_path_of_shrinkages_ends_where_each_would_alone():
    sums = moments(*labelled([0.8, 1.0, 2.0]))
    shrinkages = (0.001, 0.1, 0.3)
    for each, shrinkage in zip(learn_all(sums, shrinkages), shrinkages, strict=True):
        alone = learn(sums, shrinkage)
        assert each.weights.numpy() == pytest.approx(alone.weights.numpy(), abs=2e-3)
        assert each.separation == pytest.approx(alone.separation, abs=1e-6)
