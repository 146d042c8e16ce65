import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from s3prl_dphubert.probe.discriminant import ClassMoments, discriminant, projection


def gaussian(seed=0, count=600, width=12, classes=5):
    random = np.random.default_rng(seed)
    labels = random.choice(classes, count, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    x = random.normal(size=(count, width)) @ random.normal(size=(width, width))
    return (x + 3 * random.normal(size=(classes, width))[labels]).astype(np.float32), labels


def moments(x, labels, classes=5):
    return ClassMoments.of(torch.from_numpy(x), torch.from_numpy(labels), classes)


def test_classifier_agrees_with_scikit_learn():
    x, labels = gaussian()
    x -= x.mean(0)
    ours = discriminant(moments(x, labels), 0.0)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(x, labels)
    other, _ = gaussian(1)
    scores = theirs.decision_function(other)
    own = (torch.from_numpy(other) @ ours.weight + ours.bias).numpy()
    # scikit-learn divides the covariance by N, we by N - C.
    own = own - own.mean(1, keepdims=True)
    factor = np.polyfit(own.ravel(), (scores - scores.mean(1, keepdims=True)).ravel(), 1)[0]
    assert factor == pytest.approx(600 / 595, rel=0.01)
    assert (ours.predict(torch.from_numpy(other)).numpy() == theirs.predict(other)).mean() > 0.995


def test_projection_spans_the_space_of_scikit_learn():
    x, labels = gaussian()
    x, labels = (
        np.concatenate(each)
        for each in zip(*((x[labels == c][:25], np.full(25, c)) for c in range(5)), strict=True)
    )
    x -= x.mean(0)
    ours = projection(moments(x, labels), 0.0).numpy()
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x, labels).scalings_[:, :4]
    assert ours.shape == (12, 4)
    one, other = (np.linalg.qr(each)[0] for each in (ours, theirs))
    assert np.linalg.svd(one.T @ other)[1] == pytest.approx(1, abs=1e-3)
    white = ours.T @ moments(x, labels).within(0.0).numpy() @ ours
    assert white == pytest.approx(np.eye(4), abs=1e-3)


def test_moments_of_parts_add_up():
    x, labels = gaussian()
    x = x - x.mean(0)
    both = moments(x[:200], labels[:200]) + moments(x[200:], labels[200:])
    whole = moments(x, labels)
    for name in ("counts", "sums", "gram"):
        assert torch.allclose(getattr(both, name), getattr(whole, name), rtol=1e-4, atol=1e-2)


def test_shrinkage_leaves_the_choice_of_units_free():
    x, labels = gaussian()
    x = x - x.mean(0)
    scale = np.array([1, 10, 0.1] * 4, np.float32)
    plain, scaled = (discriminant(moments(each, labels), 0.3) for each in (x, x * scale))
    same = plain.predict(torch.from_numpy(x)) == scaled.predict(torch.from_numpy(x * scale))
    assert same.double().mean() > 0.995


def test_a_class_without_samples_is_never_predicted():
    x, labels = gaussian()
    head = discriminant(moments(x[labels != 2], labels[labels != 2]), 0.01)
    assert head.bias[2] == -torch.inf
    assert 2 not in head.predict(torch.from_numpy(x)).tolist()


def test_dimensions_without_variance_and_few_samples_do_no_harm():
    x, labels = gaussian(count=20, width=40)
    x[:, :5] = 1.0
    head = discriminant(moments(x, labels), 0.01)
    assert head.weight.isfinite().all()
    assert (head.predict(torch.from_numpy(x)).numpy() == labels).mean() > 0.9
