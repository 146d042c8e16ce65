"""``score.json`` and the reports made of it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from matplotlib.image import imread

from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError, ResultError
from s3prl_dphubert.superb.report.report_plots import COLORS, TEACHER
from s3prl_dphubert.superb.report.tables import Summary, csv_table, markdown, to_dict
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.superb.scoring.model_results import MetricValue, choose, from_records, published
from s3prl_dphubert.superb.tasks import core_tasks
from tests.helpers.golden import ROOT
from tests.helpers.superb_runs import RECORD


def run(folder, like="DPHuBERT", name="mine", seed=0, shift=0.0, without=()):
    """The score.json of every task of a model, some of them moved a little."""
    for task in core_tasks():
        if task.name not in without:
            metrics = {key: value + shift for key, value in choose(like, ()).means[task.name].items()}
            made = replace(RECORD, task=task.name, upstream=name, metrics=metrics, seed=seed)
            score_file.write(made, folder / name / str(seed) / task.folder)
    return folder


def test_a_record_comes_back(tmp_path):
    folds = {f"fold{n}": {"acc": 60.0 + n} for n in range(1, 6)}
    made = replace(RECORD, task="er", parts=folds, learning_rate=None)
    assert made.task == "ER"
    path = score_file.write(made, tmp_path / "er")
    assert score_file.read(path) == made
    assert json.loads(path.read_text())["version"] == 1
    with pytest.raises(ResultError, match="exists already"):
        score_file.write(made, tmp_path / "er")
    score_file.write(replace(made, seed=1), tmp_path / "er", overwrite=True)
    assert score_file.read(path).seed == 1
    assert [p.name for p in path.parent.iterdir()] == ["score.json"]


def test_what_has_a_caution_is_in_no_report(tmp_path, capsys):
    run(tmp_path, without=["ER"])
    made = replace(RECORD, task="ER", metrics={"acc": 99.0}, caution="synthesised")
    score_file.write(made, tmp_path / "mine" / "er")
    assert main(["superb", "report", str(tmp_path), "--no-published"]) == 0
    printed = capsys.readouterr()
    assert "left out: ER of mine: synthesised" in printed.err
    assert "99.0" not in printed.out
    assert from_records(score_file.collect([tmp_path]))[0].score() is None
    assert main(["superb", "report", str(tmp_path / "mine" / "er")]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "XX"}, "unknown task 'XX'; available: PR"),
        ({"metrics": {"acc": 120.0}}, "acc is 120.0, allowed: a number in %, 0 to 100"),
        ({"metrics": {"acc": float("nan")}}, "acc is nan"),
        ({"metrics": {"acc": "96"}}, "acc is '96'"),
        ({"metrics": {}}, "acc is missing"),
        ({"metrics": {"acc": 1.0, "wer": 2.0}}, "wer is no metric of KS, allowed: acc"),
        ({"seed": "0"}, "seed is '0', expected an integer"),
        ({"seed": True}, "seed is True"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, allowed: more than 0"),
        ({"date": "yesterday"}, "date is 'yesterday', allowed: ISO 8601"),
        ({"upstream": " "}, "upstream is empty"),
        ({"parts": {"fold1": {"acc": 1.0}}}, "allowed: nothing"),
        ({"task": "ER", "parts": {"fold9": {"acc": 1.0}}}, "allowed: metrics of fold1, fold2"),
        ({"task": "ER", "parts": {"fold1": {"acc": 101.0}}}, "parts, fold1: acc is 101.0"),
        ({"parameters": -1}, "parameters is -1"),
    ],
)
def test_wrong_records_are_refused(changes, message):
    with pytest.raises(ConfigError) as caught:
        replace(RECORD, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "holds list, expected a mapping"),
        ('{"version": 2}', "version is 2, allowed: 1"),
        ('{"version": 1, "speed": 3}', "speed: unknown field"),
        ('{"version": 1}', "task is missing"),
    ],
)
def test_damaged_records_are_refused(text, message, tmp_path):
    (tmp_path / "score.json").write_text(text)
    with pytest.raises(ResultError) as caught:
        score_file.read(tmp_path / "score.json")
    assert message in str(caught.value)


def test_seeds_become_mean_and_spread(tmp_path):
    """Seeds shifted by -0.1, 0, 0.1: the mean is the middle, the standard deviation 0.1."""
    for seed, shift in enumerate((-0.1, 0.0, 0.1)):
        run(tmp_path, seed=seed, shift=shift)
    (mine,) = from_records(score_file.collect([tmp_path]))
    accuracy = mine.results["KS"]["acc"]
    assert (accuracy.mean, accuracy.spread, accuracy.seeds) == (pytest.approx(96.36), pytest.approx(0.1), 3)
    assert mine.score() == pytest.approx(choose("DPHuBERT", ()).score())
    assert mine.points_spread(core_tasks()[0]) == pytest.approx(0.1 * 1000 / (82.01 - 3.53))
    assert 0 < mine.score_spread() < 10
    assert "| 96.36 ± 0.10 (3) |" in markdown(Summary([mine]))
    run(tmp_path, name="other", without=("QbE",))
    mine, other = from_records(score_file.collect([tmp_path]))
    assert other.score() is None
    assert other.score_spread() is None
    assert other.results["KS"]["acc"] == MetricValue(96.36, 0.0, 1)


def test_what_does_not_belong_together_is_refused(tmp_path):
    with pytest.raises(ResultError, match="a seed is there twice"):
        from_records([RECORD, RECORD])
    with pytest.raises(ResultError, match="parameters differ among its tasks"):
        from_records([RECORD, replace(RECORD, seed=1, parameters=5)])
    with pytest.raises(ResultError, match=r"holds no score\.json"):
        score_file.collect([tmp_path])
    run(tmp_path)
    assert len(score_file.collect([tmp_path, tmp_path / "mine"])) == 10  # a file counts once


def test_models_of_seeds_may_differ_a_little_in_size():
    """Each is what is left of one pruning; the mean is shown."""
    sizes = (1_480_500, 1_480_526)
    (mean,) = from_records(replace(RECORD, seed=seed, parameters=size) for seed, size in enumerate(sizes))
    assert mean.parameters == 1_480_513
    with pytest.raises(ResultError, match="parameters differ"):
        from_records(replace(RECORD, seed=seed, parameters=size) for seed, size in enumerate((100, 102)))


def test_points_lost_against_the_teacher(tmp_path):
    run(tmp_path)
    runs = from_records(score_file.collect([tmp_path]))
    teacher = choose("hubert base", runs)
    made = Summary(runs, published(), teacher)
    lost = made.lost(runs[0])
    assert len(lost) == 10
    assert sum(lost.values()) / 10 == pytest.approx(teacher.score() - runs[0].score())
    assert lost["PR"] == pytest.approx(1000 * (9.67 - 5.41) / (82.01 - 3.53))
    text = markdown(made)
    assert "## Points lost against HuBERT Base" in text
    assert "-0 |" not in text
    with pytest.raises(ResultError, match="unknown model 'nobody'; available: mine, FBANK"):
        choose("nobody", runs)


def test_tables_agree(tmp_path):
    run(tmp_path, without=("SD",))
    runs = from_records(score_file.collect([tmp_path]))
    made = Summary(runs, published())
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(csv_table(made)))}
    plain = {model["name"]: model for model in json.loads(json.dumps(to_dict(made)))["models"]}
    assert set(rows) == set(plain) == {"mine", *(model.name for model in published())}
    assert rows["mine"]["score"] == rows["mine"]["SD der mean"] == ""
    assert plain["mine"]["missing"] == ["SD"]
    assert float(rows["DPWavLM"]["score"]) == pytest.approx(plain["DPWavLM"]["score"])
    assert float(rows["DPWavLM"]["SF cer mean"]) == 26.11
    assert plain["FBANK"]["rank"] == 0 < plain["DPHuBERT"]["rank"] < plain["WavLM Base+"]["rank"]
    assert "mine has no score: SD missing." in markdown(made)
    heads = markdown(made).splitlines()[2].split("|")
    assert len(heads) == len(markdown(made).splitlines()[4].split("|"))


def test_report_command(tmp_path, capsys):
    run(tmp_path / "runs")
    run(tmp_path / "runs", seed=1, shift=0.2)
    run(tmp_path / "runs", like="DPWavLM", name="small")
    out = tmp_path / "report"
    command = ["superb", "report", str(tmp_path / "runs"), "--teacher", "HuBERT Base"]
    assert main(command) == 0
    assert "| **small** | 23.59 |" in capsys.readouterr().out
    assert main([*command, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"report.md", "report.csv", "report.json", "report.png"}
    picture = imread(out / "report.png")
    assert picture.shape[0] > 600
    assert picture.shape[1] > 1500
    for color in (COLORS[0], COLORS[1], TEACHER):
        wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
        assert ((picture[..., :3] * 255).round() == wanted).all(axis=-1).sum() > 1000
    before = (out / "report.md").read_bytes()
    assert main([*command, "--out", str(out)]) == 2
    assert "report.md, report.csv, report.json, report.png exist already" in capsys.readouterr().err
    assert main([*command, "--no-published", "--out", str(out), "--overwrite"]) == 0
    assert (out / "report.md").read_bytes() != before
    assert "| HuBERT Base |" in (out / "report.md").read_text()  # the teacher stays
    assert "DistilHuBERT" not in (out / "report.md").read_text()


def test_a_report_of_one_task_alone(tmp_path):
    score_file.write(RECORD, tmp_path / "runs")
    assert (
        main(["superb", "report", str(tmp_path / "runs"), "--no-published", "--out", str(tmp_path / "out")])
        == 0
    )
    text = (tmp_path / "out" / "report.md").read_text()
    assert "mine has no score: PR, ASR, QbE, SID, ASV, SD, ER, IC, SF missing." in text


FREE = {"benchmark": "FreeSUPERB"}
STEPS = {
    "benchmark": "SUPERB",
    "changes": ("runner.total_steps 4 instead of 200000",),
    "steps": 4,
    "items": 3081,
}


def test_benchmarks_are_kept_apart(tmp_path, capsys):
    """SUPERB's results stand beside the published ones; all others do not, and are named."""
    score_file.write(replace(RECORD, benchmark="SUPERB", items=3081), tmp_path / "right")
    score_file.write(replace(RECORD, upstream="small", **FREE), tmp_path / "free")
    score_file.write(replace(RECORD, upstream="short", **STEPS), tmp_path / "short")
    score_file.write(replace(RECORD, upstream="part", benchmark="SUPERB", items=187), tmp_path / "part")
    assert main(["superb", "report", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "| **mine** | 23.59 |" in shown.out and "| HuBERT Base |" in shown.out
    assert not any(name in shown.out for name in ("small", "short", "part"))
    assert set(shown.err.splitlines()) == {
        "left out: KS of small: of FreeSUPERB",
        "left out: KS of short: runner.total_steps 4 instead of 200000",
        "left out: KS of part: 187 test items instead of 3081",
    }
    assert main(["superb", "report", str(tmp_path), "--benchmark", "nano"]) == 2
    assert "no results of benchmark 'nano'; available: FreeSUPERB, SUPERB" in capsys.readouterr().err


def test_results_of_another_benchmark_have_no_points_and_no_published_rows(tmp_path, capsys):
    for seed, name in ((0, "fbank"), (0, "small"), (1, "small")):
        made = replace(RECORD, upstream=name, seed=seed, metrics={"acc": 32.0 + seed}, **FREE)
        score_file.write(made, tmp_path / "runs" / name / str(seed))
    out = tmp_path / "out"
    assert main(["superb", "report", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"report.md", "report.csv", "report.json"}
    text = (out / "report.md").read_text()
    assert text.startswith("# FreeSUPERB\n\n| model | M params | G MACs | KS Acc % ↑ |\n")
    assert "| **small** | 23.59 | – | 32.50 ± 0.71 (2) |" in text
    assert "do not compare with SUPERB's" in text
    assert not any(word in text for word in ("HuBERT", "Points", "score", "rank"))
    plain = json.loads((out / "report.json").read_text())
    assert plain["benchmark"] == "FreeSUPERB" and "points" not in plain["models"][0]
    (row, _) = csv.DictReader(io.StringIO((out / "report.csv").read_text()))
    assert row["benchmark"] == "FreeSUPERB" and row["score"] == row["rank"] == ""
    capsys.readouterr()
    assert main(["superb", "report", str(tmp_path / "runs"), "--teacher", "fbank"]) == 2
    assert "--teacher counts points, which SUPERB's results have; these are of FreeSUPERB" in (
        capsys.readouterr().err
    )


def test_changed_recipes_are_shown_with_their_changes(tmp_path, capsys):
    score_file.write(replace(RECORD, **STEPS), tmp_path / "a")
    assert main(["superb", "report", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# SUPERB with changes\n")
    assert "mine, KS: runner.total_steps 4 instead of 200000." in text
    assert "HuBERT Base" not in text
    score_file.write(replace(RECORD, upstream="small", **FREE), tmp_path / "b")
    assert main(["superb", "report", str(tmp_path)]) == 2
    assert "do not compare; choose one with --benchmark" in capsys.readouterr().err
    assert main(["superb", "report", str(tmp_path), "--benchmark", "freesuperb"]) == 0
    assert capsys.readouterr().out.startswith("# FreeSUPERB\n")


def test_records_that_name_no_benchmark_count_as_superbs_and_are_marked(tmp_path, capsys):
    path = score_file.write(RECORD, tmp_path / "old")
    fields = ("benchmark", "changes", "steps", "items", "processes")
    values = {key: value for key, value in json.loads(path.read_text()).items() if key not in fields}
    path.write_text(json.dumps(values))
    assert score_file.read(path) == RECORD
    assert main(["superb", "report", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "Results of mine that name no benchmark count as SUPERB's." in text and "| HuBERT Base |" in text


def test_results_that_ship_are_free_superbs():
    folder = ROOT / "docs" / "results"
    records = score_file.collect([folder])
    assert len(records) == len(list(folder.rglob(score_file.FILE)))
    assert {"hubert_mini", "DPHuBERT", "DistilHuBERT"} < {record.upstream for record in records}
    assert {record.comparable_with for record in records} == {"FreeSUPERB"}
