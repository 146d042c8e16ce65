"""Standard errors, differences and the check of validity in a report."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.free_superb import results
from s3prl_dphubert.superb.report.differences import compare, table
from s3prl_dphubert.superb.scoring import score_file, stored_statistics
from s3prl_dphubert.superb.scoring.model_results import from_records
from s3prl_dphubert.superb.scoring.uncertainty import Ratio, estimate
from s3prl_dphubert.superb.tasks import find
from tests.helpers.superb_runs import RECORD

VOICES = tuple("abcdefgh")


def record(name, percents, seed=0, task="KS", metric="acc"):
    """Return a result of one task with the same number of items by each voice."""
    statistic = Ratio(VOICES, tuple(percents), (100.0,) * len(VOICES))
    return replace(
        RECORD,
        task=task,
        upstream=name,
        seed=seed,
        metrics={metric: sum(percents) / len(VOICES)},
        benchmark="FreeSUPERB",
        standard_errors={metric: estimate(statistic).standard_error},
        statistics={metric: stored_statistics.to_plain(statistic)},
    )


RANDOM = record("random", (20.0,) * 8)
EARLY = record("early", (30.0, 32.0) * 4)
LATE = record("late", (40.0, 46.0) * 4)
RIVAL = record("rival", (48.0, 36.0) * 4)


def write(folder, *records):
    for each in records:
        score_file.write(each, folder / each.upstream / str(each.seed) / each.task)
    return folder


def test_a_score_keeps_its_standard_error_and_voices(tmp_path):
    path = score_file.write(LATE, tmp_path)
    assert score_file.read(path) == LATE
    assert LATE.standard_errors["acc"] == pytest.approx(3 / 7**0.5, rel=0.03)
    with pytest.raises(ConfigError, match="standard_errors has eer, allowed: the metrics of the result"):
        replace(LATE, standard_errors={"eer": 1.0})


def test_differences_are_paired_and_conclude_nothing_from_intervals_that_hold_0():
    late, early, rival = from_records([LATE, EARLY, RIVAL])
    (clear,) = compare(late, early, [find("KS")])
    assert clear.estimate.value == pytest.approx(12) and clear.better == "late"
    assert clear.estimate.standard_error < LATE.standard_errors["acc"], "voices differ, but alike"
    (open_one,) = compare(late, rival, [find("KS")])
    assert open_one.estimate.low < 0 < open_one.estimate.high and open_one.better == ""
    rows = table([clear, open_one]).splitlines()
    assert "| KS Acc % ↑ | late − early | +12.00 [" in rows[2] and rows[2].endswith("| late |")
    assert rows[3].endswith("| – |")
    errors = record("late", (40.0, 46.0) * 4, task="PR", metric="per")
    (lower,) = compare(*from_records([errors, replace(errors, upstream="x")]), [find("PR")])
    assert lower.better == ""


def test_lower_error_rates_are_better():
    one = record("one", (40.0, 46.0) * 4, task="PR", metric="per")
    other = record("other", (30.0, 37.0) * 4, task="PR", metric="per")
    (difference,) = compare(*from_records([one, other]), [find("PR")])
    assert difference.estimate.conclusion == "higher" and difference.better == "other"


def test_report_shows_errors_validity_and_differences(tmp_path, capsys):
    folder, out = write(tmp_path / "runs", RANDOM, EARLY, LATE, RIVAL), tmp_path / "out"
    options = ["--chain", "random,early,late", "--against", "late", "--out", str(out)]
    assert main(["superb", "report", str(folder), *options]) == 0
    text = (out / "report.md").read_text()
    assert "| **late** | 23.59 | – | 43.00, SE 1.1" in text
    assert "| KS | yes | Acc 20.00 → 31.00 → 43.00 |" in text
    assert "| KS Acc % ↑ | early − late | -12.00 [" in text
    values = json.loads((out / "report.json").read_text())
    assert values["validity"] == [{"task": "KS", "scored": True, "reason": "Acc 20.00 → 31.00 → 43.00"}]
    assert [each["better"] for each in values["differences"]] == ["late", "late", None]
    capsys.readouterr()
    for option, name in (("--chain", "late,later"), ("--against", "later")):
        assert main(["superb", "report", str(folder), option, name]) == 2
        assert "'later', allowed: " in capsys.readouterr().err


def test_seeds_add_to_the_standard_error():
    one = from_records([LATE])[0].results["KS"]["acc"]
    both = from_records([LATE, record("late", (60.0, 66.0) * 4, seed=1)])[0].results["KS"]["acc"]
    assert both.seeds == 2 and both.standard_error > 2 * one.standard_error


def test_results_page_scores_only_tasks_in_the_order_of_its_chain(tmp_path):
    floor, top = record("fbank_no_cmvn", (10.0,) * 8), record("hubert_base", (60.0, 62.0) * 4)
    page = tmp_path / "results.md"
    empty = f"{results.BEGIN}\n{results.END}\n"
    folder = write(tmp_path / "results", floor, top, RANDOM, EARLY, LATE, RIVAL)
    for models, line in (
        ("[random, early, hubert_base]", "| KS | yes | Acc 20.00 → 31.00 → 61.00 |"),
        ("[early, random, hubert_base]", "| KS | **no** | Acc 31.00 → 20.00 → 61.00: not in order |"),
    ):
        (folder / results.PAGE).write_text(f"floor: fbank_no_cmvn\nteacher: hubert_base\nchain: {models}\n")
        page.write_text(empty)
        results.main([str(folder)])
        text = page.read_text()
        assert line in text and "hubert_base − late | +18.00 [" in text and "random −" not in text
        scored = "yes" in line
        assert ("| KS | 0 | 1000 |" in text) is scored
        assert ("- KS gives no points: it fails the check of validity." in text) is not scored
    for text, message in (
        ("chain: random\n", "chain is 'random'"),
        ("floor: mfcc\n", "holds no results of mfcc, hubert_mini"),
        ("flor: mfcc\n", "flor"),
    ):
        (folder / results.PAGE).write_text(text)
        with pytest.raises(ConfigError, match=message):
            results.main([str(folder)])
