import numpy as np
import pytest
from scipy import stats

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.scoring.uncertainty import Ratio, estimate, paired_difference

VOICES = tuple("abcdefghijklm")


def ratio(percents, sizes=None):
    """A score of one percentage for each voice, of equally large voices unless sizes say otherwise."""
    sizes = np.full(len(percents), 200.0) if sizes is None else np.asarray(sizes, float)
    tops = np.asarray(percents) / 100 * sizes
    return Ratio(VOICES[: len(percents)], tuple(tops), tuple(sizes))


def test_standard_error_and_interval_are_those_of_a_mean_of_voices():
    percents = np.random.default_rng(1).normal(60, 5, 13)
    result = estimate(ratio(percents))
    low, high = stats.t.interval(0.95, 12, percents.mean(), stats.sem(percents))
    assert result.value == pytest.approx(percents.mean())
    assert result.standard_error == pytest.approx(stats.sem(percents), rel=0.02)
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.1)


def test_voices_of_unequal_size_have_the_error_of_a_ratio_estimator():
    random = np.random.default_rng(2)
    sizes, percents = random.integers(400, 600, 13), random.normal(60, 5, 13)
    score = ratio(percents, sizes)
    residuals = np.array(score.numerators) * 100 - estimate(score).value * sizes
    linear = np.sqrt(13 / 12 * np.sum(residuals**2)) / sizes.sum()  # Cochran 1977, chapter 6
    assert estimate(score).standard_error == pytest.approx(linear, rel=0.03)


def test_what_models_share_in_a_voice_cancels_in_the_paired_difference():
    random = np.random.default_rng(3)
    voices = random.normal(60, 10, 13)
    first, second = voices + 1 + random.normal(0, 0.5, 13), voices
    result = paired_difference(ratio(first), ratio(second))
    test = stats.ttest_rel(first, second)
    assert result.standard_error == pytest.approx(stats.sem(first - second), rel=0.02)
    assert (result.low, result.high) == pytest.approx(tuple(test.confidence_interval()), abs=0.02)
    assert result.conclusion == "higher"
    assert paired_difference(ratio(second), ratio(first)).conclusion == "lower"
    apart = np.hypot(estimate(ratio(first)).standard_error, estimate(ratio(second)).standard_error)
    assert result.standard_error < apart / 10


def test_an_interval_that_holds_zero_gives_no_conclusion():
    random = np.random.default_rng(4)
    voices = random.normal(60, 10, 13)
    assert (
        paired_difference(ratio(voices), ratio(voices + random.normal(0, 2, 13))).conclusion
        == "no conclusion"
    )
    same = paired_difference(ratio(voices), ratio(voices))
    assert (same.value, same.standard_error, same.conclusion) == (0, 0, "no conclusion")


def test_seeds_alone_give_the_test_of_welch():
    first, second = [61.0, 62.5, 60.2], [58.0, 58.3, 58.9]
    result = paired_difference(*([ratio([each] * 13) for each in side] for side in (first, second)))
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert result.value == pytest.approx(np.mean(first) - np.mean(second))
    assert (result.low, result.high) == pytest.approx(tuple(interval), rel=1e-6)


def test_seeds_and_voices_add_their_variances():
    percents = np.random.default_rng(5).normal(60, 5, 13)
    seeds = [-2.0, 0.0, 2.0]
    result = estimate([ratio(percents + shift) for shift in seeds])
    expected = np.hypot(stats.sem(percents), stats.sem(seeds))
    assert result.standard_error == pytest.approx(expected, rel=0.02)
    assert estimate(ratio(percents)).standard_error < result.standard_error


def test_intervals_hold_the_truth_in_19_of_20_samples_of_voices():
    random = np.random.default_rng(6)
    intervals = [estimate(ratio(random.normal(60, 5, 8))) for _ in range(400)]
    share = np.mean([each.low < 60 < each.high for each in intervals])
    assert 0.92 < share < 0.98


def test_one_voice_says_nothing_about_others():
    result = estimate(ratio([60.0]))
    assert (result.value, result.standard_error) == (60.0, float("inf"))
    assert paired_difference(ratio([60.0]), ratio([10.0])).conclusion == "no conclusion"


def test_items_are_summed_over_their_voices():
    score = Ratio.of_items(["b", "a", "b", "c"], [1, 2, 3, 0], [2, 4, 6, 0])
    assert score == Ratio(("a", "b"), (2.0, 4.0), (4.0, 8.0))
    assert Ratio.of_items("aab", [1, 0, 1], scale=1).denominators == (2.0, 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ratio(("a", "a"), (1, 1), (2, 2)), "2 .1 different."),
        (lambda: Ratio((), (), ()), "at least one"),
        (lambda: Ratio(("a", "b"), (1, 1), (2, 0)), "group b is not positive"),
        (lambda: Ratio.of_items("ab", [1]), "2 groups, 1 numerators"),
        (lambda: paired_difference(ratio([1, 2]), ratio([1, 2, 3])), "differ in c"),
        (lambda: estimate([]), "none"),
    ],
)
def test_wrong_scores_are_refused(make, message):
    with pytest.raises(ResultError, match=message):
        make()
