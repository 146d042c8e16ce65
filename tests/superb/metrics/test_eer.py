import numpy as np
import pytest
from sklearn.metrics import roc_curve

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.metrics.eer import VerificationTrials, equal_error_rate
from s3prl_dphubert.superb.scoring.uncertainty import estimate


def panel(seed, voices, utterances=30, spread=1.0):
    """Cosines of random embeddings, of which those of one voice resemble each other."""
    random = np.random.default_rng(seed)
    labels = np.repeat(voices, utterances)
    centres = {voice: random.normal(size=8) for voice in voices}
    vectors = np.stack([centres[voice] for voice in labels]) + spread * random.normal(size=(len(labels), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T, list(labels)


def exact(scores, labels):
    """Equal error rate in percent from scikit-learn's curve."""
    rows, columns = np.triu_indices(len(labels), 1)
    same = np.array(labels)[rows] == np.array(labels)[columns]
    alarms, hits, _ = roc_curve(same, scores[rows, columns])
    nearest = np.argmin(np.abs(1 - hits - alarms))
    return 100 * (1 - hits + alarms)[nearest] / 2


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_rate_agrees_with_the_curve_of_all_thresholds(spread):
    scores, labels = panel(0, list("abcde"), spread=spread)
    trials = VerificationTrials.of_scores([(scores, labels)])
    assert trials.total == 150 * 149 // 2
    rows, columns = np.triu_indices(len(labels), 1)
    same = np.array(labels)[rows] == np.array(labels)[columns]
    assert equal_error_rate(scores[rows, columns], same) == pytest.approx(exact(scores, labels), abs=0.05)
    assert estimate(trials).value == pytest.approx(exact(scores, labels), abs=0.15)


def test_a_draw_counts_as_the_test_set_without_and_with_repeated_voices():
    scores, labels = panel(1, list("abcd"))
    trials = VerificationTrials.of_scores([(scores, labels)], bins=2000)
    three = [index for index, voice in enumerate(labels) if voice != "d"]
    (without,) = trials(np.array([[1, 1, 1, 0]]))
    assert without == pytest.approx(exact(scores[np.ix_(three, three)], [labels[i] for i in three]), abs=0.15)
    rows, columns = np.triu_indices(len(labels), 1)
    weight = np.array([2 if "a" in (labels[i], labels[j]) else 1 for i, j in zip(rows, columns, strict=True)])
    same = np.array([labels[i] == labels[j] for i, j in zip(rows, columns, strict=True)])
    alarms, hits, _ = roc_curve(same, scores[rows, columns], sample_weight=weight)
    nearest = np.argmin(np.abs(1 - hits - alarms))
    (twice,) = trials(np.array([[2, 1, 1, 1]]))
    assert twice == pytest.approx(100 * (1 - hits + alarms)[nearest] / 2, abs=0.15)


def test_panels_are_averaged_by_their_trials():
    first, second = panel(2, list("abc"), 20), panel(3, list("de"), 10, 3.0)
    value = estimate(VerificationTrials.of_scores([first, second])).value
    sizes = np.array([60 * 59, 20 * 19])
    assert value == pytest.approx(np.average([exact(*first), exact(*second)], weights=sizes), abs=0.3)


def test_a_draw_of_one_voice_has_no_rate():
    trials = VerificationTrials.of_scores([panel(4, list("ab"))])
    assert np.isnan(trials(np.array([[2, 0]]))).all()
    assert np.isfinite(estimate(trials).standard_error)


def test_trials_of_one_kind_are_refused():
    with pytest.raises(ResultError, match="same and different"):
        VerificationTrials(("a",), np.array([[0, 0]]), np.array([0]), np.array([[1, 2]]))
    with pytest.raises(ResultError, match="allowed: "):
        VerificationTrials(("a",), np.array([[0, 0]]), np.array([0, 1]), np.array([[1, 2]]))
