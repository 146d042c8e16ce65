"""Learning rates that are tried, tasks that fail or lack something beside others, cached and shared work."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import soundfile

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.unpickler import read_foreign_pickle
from s3prl_dphubert.cli import main
from s3prl_dphubert.superb.run.experiment import best_score
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.utils.readers import read_record
from tests.helpers.models import tiny
from tests.helpers.superb_runs import corpora, recipes, run, upstream

pytestmark = [pytest.mark.slow, pytest.mark.s3prl]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Intents whose words are the same in all splits, keywords and speakers; no emotions."""
    folder = tmp_path_factory.mktemp("sweep")
    corpora(folder / "data", ["ic", "ks", "asv"])
    recipes(folder / "recipes", ["ic", "ks", "er", "asv"], total_steps=30, eval_step=10, save_step=15)
    upstream(folder / "model")
    return folder


def test_a_sweep_keeps_the_rate_that_is_best_on_dev(place, capsys):
    done = run(place, "ic", "--sweep", "lr=1e-9,3e-2", out="sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = place / "sweep" / "ic"
    record = read_record(folder / "sweep.json")
    assert record["chosen"] == 3e-2
    assert record["compared"] == "on dev"
    assert record["scores"] == {
        rate: best_score(folder / f"train-lr{rate}" / "states-30.ckpt") for rate in ("1e-09", "3e-02")
    }
    assert record["scores"]["3e-02"] > record["scores"]["1e-09"]
    result = score_file.read(folder / score_file.FILE)
    assert result.learning_rate == 3e-2
    assert result.checkpoints["ic"].startswith("dev-best.ckpt, step ")
    said = re.findall(r"\d  (ic[^:\n]*?)  +(trained|evaluated)", done.stdout)
    assert sorted(said) == [("ic", "evaluated"), ("ic lr 1e-09", "trained"), ("ic lr 3e-02", "trained")]

    trained = {path: path.stat().st_mtime_ns for path in folder.glob("train-lr*/states-*.ckpt")}
    assert len(trained) == 4
    more = run(place, "ic", "--sweep", "lr=1e-9,3e-2,1e-8", out="sweep")
    assert more.returncode == 0, more.stdout + more.stderr
    assert re.findall(r"\d  (ic lr \S+) +trained", more.stdout) == ["ic lr 1e-08"]
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert set(read_record(folder / "sweep.json")["scores"]) == {"1e-09", "3e-02", "1e-08"}
    assert score_file.read(folder / score_file.FILE) == result

    borrowed = run(place, "ic", "--trained", str(place / "sweep"), out="borrowed")
    assert borrowed.returncode == 0, borrowed.stdout + borrowed.stderr
    score = score_file.read(place / "borrowed" / "ic" / score_file.FILE)
    assert (score.learning_rate, score.metrics) == (3e-2, result.metrics)


def test_a_sweep_in_two_stages_trains_few_rates_to_the_end(place):
    rates = ("--sweep", "lr=1e-9,3e-2,1e-8,1e-2", "--sweep-steps", "10")
    checked = run(place, "ic", *rates, "--check", out="stages")
    cost = (
        "sweep of 4 learning rates: 4 trainings of 15 steps, then 2 trainings of 30 steps, 120 steps in all"
    )
    assert f"IC: {cost}" in checked.stdout
    done = run(place, "ic", *rates, out="stages")
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_record(place / "stages" / "ic" / "sweep.json")
    assert record["short"]["steps"] == 15 and len(record["short"]["scores"]) == 4
    best = sorted(record["short"]["scores"], key=record["short"]["scores"].get)[-2:]
    assert set(record["scores"]) == set(best) == {"3e-02", "1e-02"}
    trained = re.findall(r"\d  ic lr (\S+)( short)? +trained", done.stdout)
    assert sorted(trained) == sorted(
        [(r, " short") for r in record["short"]["scores"]] + [(r, "") for r in best]
    )


def test_verification_sweeps_no_rate_since_it_has_no_development_set(place):
    steps = ("--set", "runner.total_steps=2", "--set", "runner.save_step=1")
    done = run(place, "asv", "--sweep", "lr=1e-4,5e-2", *steps, out="verify")
    assert done.returncode == 2
    assert "sweep is asked for ASV, allowed: tasks that are trained and have a dev set" in done.stderr
    both = run(place, "asv,ic", "--sweep", "lr=1e-4,5e-2", "--check", out="verify")
    assert "ASV: keeps its learning rate of 5e-05: it has no development set" in both.stdout
    assert "IC: sweep of 2 learning rates: 2 trainings of 30 steps, 60 steps in all" in both.stdout
    one = run(place, "ic", "--sweep", "lr=1e-4", "--check", out="verify")
    assert "IC: learning rate 0.0001, the only one of the sweep" in one.stdout


def test_a_moved_corpus_keeps_results_and_a_changed_one_does_not(place, capsys):
    """Results depend on what is in the corpus, wherever it lies."""
    here, there = place / "moving", place / "moved"
    here.mkdir()
    shutil.copytree(
        place / "data" / "fluent_speech_commands_dataset", here / "data" / "fluent_speech_commands_dataset"
    )
    for name in ("recipes", "model"):
        shutil.copytree(place / name, here / name)
    done = run(here, "ic")
    assert done.returncode == 0, done.stdout + done.stderr
    here.rename(there)
    again = run(there, "ic")
    assert again.returncode == 0, again.stdout + again.stderr
    assert not re.search(r"  (trains|trained|evaluated)", again.stdout)

    path = min((there / "data").rglob("test/*.wav"))
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[:-100], rate)
    changed = run(there, "ic")
    assert changed.returncode == 1
    assert re.search(r"was made from something else: audio\.test\.seconds \S+ \(was ", changed.stdout)
    capsys.readouterr()
    assert main(["superb", "status", str(there / "out")]) == 0
    assert re.match(r"ic +failed +.*was made from something else", capsys.readouterr().out)
    assert main(["superb", "report", str(there / "out")]) == 2
    assert "left out: IC of tiny: its last run failed" in capsys.readouterr().err


def test_damaged_test_data_is_found_before_anything_is_trained(place):
    bad = place / "bad"
    bad.mkdir()
    for name in ("recipes", "model", "data"):
        shutil.copytree(place / name, bad / name)
    min((bad / "data" / "fluent_speech_commands_dataset").rglob("test/*.wav")).write_bytes(b"")
    done = run(bad, "ic")
    assert done.returncode == 3
    assert re.search(r"(?m)^IC +faulty ", done.stdout)
    assert re.search(r"(?m)^IC: test: .*\.wav: unreadable", done.stdout)
    assert not (bad / "out" / "ic").exists()


def test_tasks_that_fail_or_lack_something_do_not_stop_the_others(place, capsys):
    broken = ("--set", "ks.downstream_expert.modelrc.select=Nothing")
    done = run(place, "ks,er,ic", *broken, out="mixed")
    assert done.returncode == 1
    assert re.search(r"(?m)^ER +5 of 5 missing ", done.stdout)
    assert "ER: put IEMOCAP_full_release/Session1, " in done.stdout
    assert "left out: ER" in done.stdout
    assert "failed: KS; " in done.stdout
    assert "done: IC; " in done.stdout
    assert score_file.read(place / "mixed" / "ic" / score_file.FILE).metrics["acc"] >= 0
    assert not (place / "mixed" / "ks" / score_file.FILE).exists()

    capsys.readouterr()
    assert main(["superb", "status", str(place / "mixed")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ks        failed   NameError: name 'Nothing' is not defined"
    assert [line.split()[:3] for line in lines[1:6]] == [
        ["er", f"fold{number}", "waiting"] for number in range(1, 6)
    ]
    assert re.fullmatch(r"ic +done +acc \d+\.\d\d", lines[6])

    mended = run(place, "ks", out="mixed")
    assert mended.returncode == 0, mended.stdout
    assert score_file.read(place / "mixed" / "ks" / score_file.FILE).learning_rate == 1e-4

    other = run(place, "ks", "--set", "optimizer.lr=0.5", "--seed", "7", out="mixed")
    assert other.returncode == 1
    changes = r"config\.optimizer\.lr 0\.5 \(was 0\.0001\); seed 7 \(was 1337\)"
    assert re.search(rf"ks/train: was made from something else: {changes}; choose another", other.stdout)
    assert score_file.read(place / "mixed" / "ks" / score_file.FILE).learning_rate == 1e-4


def test_what_lacks_something_only_is_told_by_the_exit_code(place):
    assert run(place, "er", out="lacking").returncode == 3
    checked = run(place, "er,ic", "--check", out="lacking2")
    assert checked.returncode == 3
    assert not (place / "lacking2").exists()


def test_an_upstream_that_cannot_be_loaded_is_one_message(place):
    done = run(place, "ic", "--upstream", "nothing_at_all", "--ckpt", "", out="none")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "cannot be loaded" in line]
    assert line.startswith("s3prl-dphubert: tiny cannot be loaded: s3prl ended with status 1")
    assert "s3prl.hub has no upstream 'nothing_at_all'" in done.stderr


@pytest.fixture(scope="module")
def plain(place):
    """Intents on hidden states that depend on nothing else in the batch."""
    exact = place / "exact.yaml"
    exact.write_text(json.dumps({"padding": "exact"}))
    done = run(place, "ic", "--options", str(exact), out="plain")
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "plain" / "ic"


def test_hidden_states_that_are_kept_change_no_score(place, plain):
    done = run(place, "ic", "--cache-features", str(place / "kept"), "--cache-limit", "0.01", out="kept-out")
    assert done.returncode == 0, done.stdout + done.stderr
    size = r"0\.\d\d h of audio, \d\.\d\d GB, limit 0\.01GB"
    assert re.search(rf"ic +hidden states to keep: {size}", done.stdout)
    (states,) = (place / "kept").glob("*/states.f16")
    assert states.stat().st_size > 0
    other = place / "kept-out" / "ic"
    assert (plain / "test_predict.csv").read_text() == (other / "test_predict.csv").read_text()
    first, second = (read_record(each / "train/state.json")["made_from"] for each in (plain, other))
    assert second["upstream"]["options"].pop("features") == "float16"  # to which they are rounded
    assert first == second


def test_downstreams_of_another_run_are_evaluated_with_this_upstream(place, plain):
    """They are the ones that run evaluated; weights, options and all else are this upstream's."""
    exact, before = str(place / "exact.yaml"), tree(place / "plain")
    same = run(place, "ic", "--options", exact, "--trained", str(place / "plain"), out="same")
    assert same.returncode == 0, same.stdout + same.stderr
    predicted = [(place / name / "ic" / "test_predict.csv").read_text() for name in ("plain", "same")]
    assert predicted[0] == predicted[1]
    assert not list((place / "same").rglob("*.ckpt"))

    save_model(tiny("hubert", seed=5), place / "model5")
    other = run(place, "ic", "--trained", str(place / "plain"), out="other", model="model5")
    assert other.returncode == 0, other.stdout + other.stderr
    log = (place / "other/ic/evaluate.log").read_text()
    assert f"args.upstream_ckpt = {place / 'model5'}" in log
    assert "args.upstream_model_config = None" in log
    assert (
        score_file.read(place / "other/ic/score.json")
        .checkpoints["ic"]
        .endswith(", trained by a run of tiny")
    )
    assert tree(place / "plain") == before

    more = run(place, "ic", "--trained", str(place / "plain"), "--set", "optimizer.lr=1", out="more")
    assert more.returncode == 1
    assert "was made from something else: config.optimizer.lr 1 (was " in more.stdout
    none = run(place, "ks", "--trained", str(place / "plain"), out="none-there")
    assert none.returncode == 1
    assert "plain/ks/train: holds no finished training" in none.stdout
    nowhere = run(place, "ic", "--sweep", "lr", "--trained", str(place / "data"), out="nowhere")
    assert nowhere.returncode == 2
    assert "allowed: folder of a run" in nowhere.stderr
    assert "sweep is asked for, allowed without trained" in nowhere.stderr


def test_a_corpus_of_another_size_counts_for_no_score(place, plain):
    recipes = shutil.copytree(place / "recipes", place / "counted")
    with (recipes / "ic" / "recipe.yaml").open("a") as file:
        file.write("counts: {test: 5}\n")
    words = (
        "--recipes",
        str(recipes),
        "--options",
        str(place / "exact.yaml"),
        "--trained",
        str(place / "plain"),
    )
    refused = run(place, "ic", *words, out="counted-out")
    assert refused.returncode == 3
    assert "IC: test has 4 files, SUPERB's has 5; complete the corpus" in refused.stdout
    done = run(place, "ic", *words, "--any-count", out="counted-out")
    assert done.returncode == 0, done.stdout + done.stderr
    deviation = "test has 4 files, SUPERB's has 5"
    assert score_file.read(place / "counted-out" / "ic" / "score.json").caution == deviation
    assert f"excluded from the score: {deviation}" in done.stdout


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


def test_two_processes_train_as_one_on_all_of_the_batch(place, plain):
    """Each takes half of the training set, and both send their gradients; the first one evaluates."""
    exact = place / "exact.yaml"
    done = run(place, "ic", "--options", str(exact), "--processes", "2", out="two")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = place / "two" / "ic"
    one, two = (read_foreign_pickle(each / "train" / "states-30.ckpt") for each in (plain, folder))
    assert two["WorldSize"] == 2
    assert one["Step"] == two["Step"] == 30
    assert one["Downstream"].keys() == two["Downstream"].keys()
    for part in ("Downstream", "Featurizer"):
        for name, weights in one[part].items():
            # Adam moves each by 3e-3 in 30 steps, those without a gradient to speak of by what is rounded.
            assert (two[part][name] - weights).abs().mean() < 1e-4, name
    assert (plain / "test_predict.csv").read_text() == (folder / "test_predict.csv").read_text()
    again = run(place, "ic", "--options", str(exact), out="two")
    assert again.returncode == 1
    assert "processes 1 (was 2)" in again.stdout
