"""Tasks that do not put a chain of models in order are not scored."""

from __future__ import annotations

import pytest

from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.superb.scoring.model_results import MetricValue, ModelResults
from s3prl_dphubert.superb.scoring.relative_points import RelativePoints
from s3prl_dphubert.superb.scoring.uncertainty import Ratio
from s3prl_dphubert.superb.scoring.validity import chain, judge
from s3prl_dphubert.superb.tasks import find

VOICES = tuple("abcdefgh")
NAMES = ("random", "early", "late")


def by_voice(percents):
    return Ratio(VOICES, tuple(percents), (100.0,) * len(VOICES))


def models(task, **metrics):
    """Return three models with the given values of each metric."""
    return [
        ModelResults(name, {task: {key: MetricValue(values[index]) for key, values in metrics.items()}})
        for index, name in enumerate(NAMES)
    ]


@pytest.mark.parametrize(
    ("values", "scored", "reason"),
    [
        ((20.0, 40.0, 60.0), True, "Acc 20.00 → 40.00 → 60.00"),
        ((20.0, 60.0, 40.0), False, "Acc 20.00 → 60.00 → 40.00: not in order"),
        ((20.0, 20.0, 40.0), False, "Acc 20.00 → 20.00 → 40.00: not in order"),
    ],
)
def test_accuracies_must_rise(values, scored, reason):
    verdict = judge(find("KS"), models("KS", acc=values))
    assert (verdict.scored, verdict.reason) == (scored, reason)


def test_every_metric_must_get_better_in_its_own_direction():
    better = models("SF", f1=(10.0, 20.0, 30.0), cer=(90.0, 80.0, 70.0))
    assert judge(find("SF"), better).reason == "F1 10.00 → 20.00 → 30.00, CER 90.00 → 80.00 → 70.00"
    worse = judge(find("SF"), models("SF", f1=(10.0, 20.0, 30.0), cer=(70.0, 80.0, 90.0)))
    assert not worse.scored and worse.reason.startswith("CER")


def test_character_errors_stand_for_word_errors_where_a_recipe_reports_them():
    words, characters = (100.0, 100.0, 99.0), (90.0, 80.0, 70.0)
    both = models("ASR", wer=words, cer=characters)
    assert judge(find("ASR"), both).reason == "CER 90.00 → 80.00 → 70.00"
    assert not judge(find("ASR"), models("ASR", wer=words)).scored
    between = RelativePoints(both[0], both[2], 5.0)
    assert [between.points(model, find("ASR")) for model in both] == [0, 500, 1000]
    assert RelativePoints(*models("ASR", wer=words)[::2], 5.0).task(find("ASR")) is None


def test_a_result_that_is_missing_leaves_the_task_unscored():
    verdict = judge(find("KS"), [*models("KS", acc=(1.0, 2.0, 3.0))[:2], ModelResults("late", {})])
    assert not verdict.scored and verdict.reason == "no Acc of late"


def test_an_order_that_may_be_chance_does_not_count():
    """All voices agree on the first difference; half of them contradict the second."""

    def task(*rows):
        values = [MetricValue(sum(row) / 8, statistics=(by_voice(row),)) for row in rows]
        return [ModelResults(n, {"KS": {"acc": value}}) for n, value in zip(NAMES, values, strict=True)]

    low, middle = (30.0,) * 8, (35.0,) * 8
    assert judge(find("KS"), task(low, middle, (38.0, 42.0) * 4)).scored
    verdict = judge(find("KS"), task(low, (30.5,) * 8, (12.0, 50.0) * 4))
    assert not verdict.scored and "the last and the first may be equal, [" in verdict.reason


def test_the_models_of_a_chain_are_named():
    known = models("KS", acc=(1.0, 2.0, 3.0))
    assert [model.name for model in chain([" early", "late"], known)] == ["early", "late"]
    with pytest.raises(ConfigError, match="chain has 'later', allowed: two or more of random, early, late"):
        chain(["random", "later"], known)
    with pytest.raises(ConfigError, match="chain has 1 models"):
        chain(["random"], known)
