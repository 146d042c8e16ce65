"""``superb run`` takes every task from its corpus to a number in the report."""

from __future__ import annotations

import csv
import math
import re
from importlib.util import find_spec

import pytest

from s3prl_dphubert.cli import main
from s3prl_dphubert.superb.metrics import mtwv
from s3prl_dphubert.superb.run.workers.launcher import Launcher
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.superb.submission.archive import SubmissionChecks, check
from s3prl_dphubert.superb.tasks import all_tasks, find
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.readers import read_record
from tests.helpers.s3prl_runs import assert_resumed, read_states
from tests.helpers.superb_runs import SMALL, corpora, environment, recipes, run, upstream

pytestmark = [pytest.mark.slow, pytest.mark.s3prl]

COMPILED = {"se": ("pesq", "pystoi"), "ss": ("pesq", "pystoi"), "vc": ("pyworld", "fastdtw")}
"""Tasks that need an extra of this package, which a compiler has to be there for; ST needs fairseq."""
NAMES = [name for name in SMALL if all(map(find_spec, COMPILED.get(name, ())))]


LAYERS = 12  # of the small HuBERT that ships


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Corpora, recipes and models of this file's runs."""
    folder = tmp_path_factory.mktemp("superb")
    corpora(folder / "data", SMALL)
    recipes(folder / "recipes")
    upstream(folder / "model")
    (folder / "mini").symlink_to(resources.find("assets/hubert_mini"))
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """All tasks on the small HuBERT that ships, two at a time."""
    done = run(place, ",".join(NAMES), "--jobs", "2", model="mini", out="whole")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return place / "whole", done.stdout


def test_every_task_gets_its_score(whole):
    out, said = whole
    assert "nothing is missing" in said
    for name in NAMES:
        task, result = find(name), score_file.read(out / name / score_file.FILE)
        assert result.upstream == "tiny"
        assert result.seed == 1337
        assert (result.parameters, result.macs) == (5_922_816, 127_425_970_240)
        assert (result.learning_rate is None) == (name == "qbe")
        assert set(result.checkpoints) == {part.name or name for part in task.parts}
        assert set(result.parts) == {part.name for part in task.parts if part.name}
        assert set(result.layer_weights) == (set() if name == "qbe" else set(result.checkpoints))
        for weights in result.layer_weights.values():
            assert len(weights) == LAYERS + 1 and sum(weights) == pytest.approx(1)
        assert result.versions["s3prl"] == result.s3prl == "0.4.18"
        assert (result.benchmark, result.comparable_with) == ("SUPERB", "SUPERB with changes")
        assert result.processes == 1 and (result.steps is None) == (name == "qbe")
        line = rf"\d\d:\d\d:\d\d  {name} .*{task.metrics[0].name} [-\d.]+.*  .*score\.json"
        assert re.search(rf"(?m)^{line}$", said)


@pytest.fixture(scope="module")
def launcher(place):
    with Launcher(environment(place)) as started:
        yield started


@pytest.mark.parametrize("name", [name for name in NAMES if name != "qbe"])  # which has nothing to train
def test_every_task_trains_evaluates_and_resumes(name, whole, launcher, tmp_path):
    """s3prl goes on for two steps from the checkpoint after two; one part of a task stands for the others."""
    out = whole[0] / name
    trained = sorted(out.rglob("train/states-2.ckpt"))[0]
    options = f"args.expdir={tmp_path},,config.runner.total_steps=4"
    resume = ["-m", "train", "-e", str(trained), "-o", options, "--device", "cpu"]
    launcher.run("downstream", resume, tmp_path / "resumed.log", tmp_path)
    assert_resumed(read_states(trained), read_states(tmp_path / "states-4.ckpt"), LAYERS + 1)
    score = score_file.read(out / score_file.FILE)
    numbers = [number for metrics in (score.metrics, *score.parts.values()) for number in metrics.values()]
    assert len(numbers) > 0
    assert all(map(math.isfinite, numbers))
    for log in (tmp_path / "resumed.log", *out.rglob("*.log")):
        assert not re.search(r"(?m)^s3prl-dphubert: ", log.read_text()), log


def test_every_task_has_a_number_in_the_report(whole, tmp_path):
    out, _ = whole
    main(["superb", "report", str(out), "--out", str(tmp_path / "report"), "--no-published"])
    with (tmp_path / "report" / "report.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    shown = {find(name).name: score_file.read(out / name / score_file.FILE).metrics for name in NAMES}
    values = list(row.values())
    for metrics in shown.values():
        for number in metrics.values():
            assert any(_close(value, number) for value in values), (number, row)
    assert len(shown) == len(NAMES)
    assert set(all_tasks()) - {find(name) for name in NAMES} <= {find(name) for name in (*COMPILED, "st")}


def _close(text, number):
    try:
        return abs(float(text) - number) <= 0.006
    except ValueError:
        return False


def test_what_they_predict_can_be_submitted(whole, tmp_path):
    out, _ = whole
    main(["superb", "submit", str(out), "--out", str(tmp_path / "predict.zip"), "--any-count"])
    report = check(tmp_path / "predict.zip", SubmissionChecks(any_count=True))
    assert not report.faults
    wanted = {
        prediction.entry
        for task in all_tasks()
        if task.folder in NAMES
        for prediction in task.predictions
        if not prediction.optional
    }
    assert set(report.items) == wanted
    assert len(wanted) == 15 + len({"se", "ss"} & set(NAMES))


def test_emotions_are_recognised_in_five_folds(whole):
    result = score_file.read(whole[0] / "er" / score_file.FILE)
    assert result.metrics["acc"] == pytest.approx(sum(part["acc"] for part in result.parts.values()) / 5)
    for number in range(1, 6):
        fold = whole[0] / "er" / f"fold{number}"
        assert f"Ses0{number}" in (fold / f"test_fold{number}_predict.txt").read_text()
        made_from = read_record(fold / "train" / "state.json")["made_from"]
        assert made_from["config"]["downstream_expert"]["datarc"]["test_fold"] == f"fold{number}"


def test_verification_takes_the_best_of_the_saved_checkpoints(whole):
    folder, result = whole[0] / "asv", score_file.read(whole[0] / "asv" / score_file.FILE)
    rates = {}
    for place in (folder / "candidates" / "train").iterdir():
        (rate,) = re.findall(r"test-EER: (\S+)", (place / "evaluate.log").read_text())
        rates[place.name] = 100 * float(rate)
    assert len(rates) == 2
    best = min(rates.values())
    assert result.metrics["eer"] == pytest.approx(best)
    chosen = re.match(r"(states-\d)\.ckpt, best eer of 2 saved", result.checkpoints["asv"])[1]
    assert rates[chosen] == best
    predicted = (folder / "candidates" / "train" / chosen / "test_predict.txt").read_text()
    assert (folder / "test_predict.txt").read_text() == predicted


def test_queries_are_searched_by_the_hidden_state_that_is_best_on_dev(whole, place):
    out, scoring = whole[0] / "qbe", place / "data" / "quesst14Database" / "scoring"
    layers = sorted((out / "layers").iterdir(), key=lambda each: int(each.name))
    dev = [100 * mtwv.score(each / "benchmark.stdlist.xml", _truth(scoring, "dev")).mtwv for each in layers]
    assert len(dev) == 13
    result = score_file.read(out / score_file.FILE)
    listed = re.fullmatch(r"hidden state (\d); MTWV x100 on dev: (.*)", result.checkpoints["qbe"])
    assert int(listed[1]) == dev.index(max(dev))
    assert listed[2] == ", ".join(f"{layer}: {score:.2f}" for layer, score in enumerate(dev))
    evaluated = 100 * mtwv.score(out / "benchmark.stdlist.xml", _truth(scoring, "eval")).mtwv
    assert result.metrics["mtwv"] == pytest.approx(evaluated)
    assert evaluated > 0


def _truth(scoring, split):
    return scoring / f"groundtruth_quesst14_{split}"


def test_diarization_is_scored_against_what_was_prepared(whole):
    from s3prl_dphubert.superb.metrics import der

    (rttm,) = (whole[0].parent / "cache" / "prepared").glob("sd-*/test/rttm")
    best = der.best(whole[0] / "sd", rttm)
    assert score_file.read(whole[0] / "sd" / score_file.FILE).metrics["der"] == pytest.approx(100 * best.rate)


def test_a_second_run_does_nothing_again_and_status_says_so(whole, place, capsys):
    out, _ = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".ckpt", ".json")}
    before.pop(out / "run.json")
    again = [name for name in ("ks", "er", "asv", "qbe", "sd", "vc") if name in NAMES]
    done = run(place, ",".join(again), model="mini", out="whole")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"  (trains|trained|evaluated|searches)", done.stdout)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    main(["superb", "status", str(out)])
    lines = capsys.readouterr().out.splitlines()
    wanted = [[task.folder, "done"] for task in all_tasks() if task.folder in NAMES]
    assert [line.split()[:2] for line in lines] == wanted
