import pytest

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.probe.comparison import differences, orders
from s3prl_dphubert.probe.probe_tables import differences_table, orders_table, scores_table
from tests.helpers.probe_records import record


def by_probe(first, second):
    return {(each.probe, each.head): each for each in differences(first, second)}


def test_differences_are_positive_where_the_first_model_is_better():
    good, bad = record("good", 70.0, eer_noise=0.3), record("bad", 60.0, eer_noise=1.5)
    compared = by_probe(good, bad)
    assert compared["words", "best layer"].estimate.value == pytest.approx(10, abs=0.1)
    assert compared["words", "best layer"].verdict == "good is better"
    assert compared["verification", "best layer"].estimate.value > 0
    assert by_probe(bad, good)["words", "layer weights"].verdict == "good is better"


def test_an_interval_that_holds_zero_gives_no_conclusion():
    compared = by_probe(record("a", 60.0, spread=3), record("b", 60.5, spread=3, seed=1))
    assert compared["words", "best layer"].verdict == "no conclusion"
    assert "no conclusion" in differences_table(list(compared.values()))


def test_seeds_of_a_recipe_widen_the_interval():
    seeds = [record("a", percent, spread=0.5, seed=7) for percent in (58.0, 60.0, 62.0)]
    other = record("b", 57.0, spread=0.5, seed=7)
    one, several = (by_probe(side, other)["words", "best layer"].estimate for side in (seeds[1], seeds))
    assert one.value == pytest.approx(several.value, abs=0.01)
    assert several.high - several.low > 3 * (one.high - one.low)


def test_models_without_a_common_probe_are_refused():
    from dataclasses import replace

    with pytest.raises(ResultError, match="a and b share no probe"):
        differences(record("a", 60.0), replace(record("b", 60.0), scores=()))


def test_a_probe_is_valid_if_it_ranks_models_as_they_are():
    models = [record(name, percent) for name, percent in (("random", 20.0), ("early", 40.0), ("late", 55.0))]
    ranked = {(each.probe, each.head): each.is_valid for each in orders(models)}
    assert ranked["words", "best layer"] and ranked["phones", "layer weights"]
    assert not ranked["verification", "best layer"]  # all three are the same there
    table = orders_table(orders(models))
    assert "random → early" in table and "| valid |" in table and "| not valid |" in table
    assert not any(each.is_valid for each in orders([models[0], models[2], models[1]]))


def test_an_order_within_the_error_is_not_valid():
    models = [record("random", 60.0, spread=3), record("late", 60.5, spread=3, seed=1)]
    words = next(each for each in orders(models) if each.probe == "words")
    assert words.steps[0].estimate.value > 0 and not words.is_valid


def test_one_model_has_no_order():
    with pytest.raises(ResultError, match="--order has 1 record, allowed: 2 or more"):
        orders([record("a", 60.0)])


def test_the_table_has_a_column_for_each_model():
    table = scores_table([record("a|b", 60.0), record("c", 50.0)])
    head, _, *rows = table.splitlines()
    assert head == "|  | a\\|b | c |"
    assert rows[0] == "| parameters, M | 0.813 | 0.813 |"
    assert any(row.startswith("| words (accuracy % ↑), best layer | 6") for row in rows)
    assert "| words, layer chosen | 1, 2 | 1, 2 |" in rows
    assert rows[-2:] == ["| minutes | 2.0 | 2.0 |", "| minutes of CPU | 3.0 | 3.0 |"]
