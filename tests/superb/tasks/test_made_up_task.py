"""A task of one module and one folder of recipes, through every command, with no other file touched."""

from __future__ import annotations

import textwrap
import zipfile

import pytest

from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError, ResultError
from s3prl_dphubert.superb import tasks
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.superb.tasks import all_tasks, core_tasks, find, register
from s3prl_dphubert.superb.tasks.spec import HIGHER, Metric, Prediction, SuperbTask, TaskPart
from tests.helpers.corpora import speech_commands
from tests.helpers.superb_runs import run, upstream

MODULE = '''
"""Recognition of spoken days."""

from pathlib import Path

from ..metrics.parsers import TEST_ACCURACY
from ..submission import prediction_formats
from .audio_lists import matching
from .spec import HIGHER, Metric, Prediction, SuperbTask


def audio(config):
    return matching(Path(config["downstream_expert"]["datarc"]["speech_commands_test_root"]), "*/*.wav")


TASK = SuperbTask(
    name="Days",
    title="recognition of spoken days",
    downstream="speech_commands",
    metrics=(Metric("acc", "Acc", "%", HIGHER, TEST_ACCURACY),),
    packages=("soundfile",),
    audio=audio,
    predictions=(Prediction("days/predict.txt", "test_predict.txt", prediction_formats.labels, count=7),),
)
'''
CONFIG = """
runner:
  total_steps: 2
  gradient_clipping: 1
  gradient_accumulate_steps: 1
  log_step: 1
  eval_step: 1
  save_step: 1
  max_keep: 2
  eval_dataloaders: [dev]
optimizer: {name: TorchOptim, torch_optim_name: Adam, lr: 1.0e-3}
downstream_expert:
  datarc:
    speech_commands_root: "{data}/days/train"
    speech_commands_test_root: "{data}/days/test"
    num_workers: 0
    batch_size: 8
  modelrc:
    projector_dim: 16
    select: UtteranceLevel
    UtteranceLevel: {pooling: MeanPooling}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The module, the recipe, a corpus of five words and a model of three layers."""
    (tmp_path / "days_task.py").write_text(MODULE)
    recipe = tmp_path / "recipes" / "days"
    recipe.mkdir(parents=True)
    (recipe / "config.yaml").write_text(CONFIG)
    (recipe / "recipe.yaml").write_text("data: [days/train, days/test]\n")
    upstream(tmp_path / "model")
    (tmp_path / "data").mkdir()
    monkeypatch.setenv(tasks.FILES, str(tmp_path / "days_task.py"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.s3prl
def test_a_task_of_one_module_and_one_recipe_goes_all_the_way(place, capsys):
    assert [task.name for task in all_tasks()][-2:] == ["OOD-ASR", "Days"] and len(core_tasks()) == 10

    checked = run(place, "days", "--check")
    assert checked.returncode == 3
    assert "Days: put days/train, days/test below" in checked.stdout
    speech_commands(place / "data" / "days")
    assert "nothing is missing" in run(place, "days", "--check").stdout

    done = run(place, "days", "--cache-features", str(place / "features"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "h of audio" in done.stdout  # the size of its hidden states was estimated from its list of audio
    record = score_file.read(place / "out" / "days" / score_file.FILE)
    assert (record.task, record.upstream, set(record.metrics)) == ("Days", "tiny", {"acc"})
    assert (record.benchmark, record.changes, record.steps, record.items) == ("SUPERB", (), 2, 6)
    assert record.processes == 1 and record.deviations == ["6 test items instead of 7"]
    assert main(["superb", "status", str(place / "out")]) == 0
    assert capsys.readouterr().out.split() == ["days", "done", "acc", f"{record.metrics['acc']:.2f}"]

    assert main(["superb", "report", str(place / "out"), "--no-published"]) == 0
    report = capsys.readouterr().out
    assert "| Days Acc % ↑ |" in report and f"| {record.metrics['acc']:.2f} |" in report

    archive = place / "predict.zip"
    assert main(["superb", "submit", str(place / "out"), "--out", str(archive), "--any-count"]) == 0
    assert "ok       days/predict.txt: 6 items" in capsys.readouterr().out
    assert zipfile.ZipFile(archive).namelist() == ["predict/days/predict.txt"]
    assert main(["superb", "check", str(archive)]) == 2
    assert "fault    days/predict.txt: holds 6 items, allowed: 7" in capsys.readouterr().out


def test_without_the_module_its_results_name_the_tasks_there_are(place, monkeypatch):
    assert find("DAYS").title == "recognition of spoken days"
    monkeypatch.delenv(tasks.FILES)
    with pytest.raises(ResultError, match=r"unknown task 'days'; available: PR, ASR, .*, OOD-ASR$"):
        find("days")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("TASK = 3\n", "defines no TASK, expected a SuperbTask"),
        ("import nowhere\n", r"cannot be imported \(ModuleNotFoundError: No module named 'nowhere'\)"),
        (MODULE.replace('"Days"', '"ks"'), "task ks: name is taken by keyword spotting"),
        (
            MODULE.replace('name="Days"', 'name="Days", track="SUPERB"'),
            "task Days: track is 'SUPERB', allowed outside this package: 'extra'",
        ),
        (MODULE.replace('"Days"', '"spoken days"'), "name is 'spoken days', allowed: letters, digits"),
        (None, "no such Python file: .*task.py"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_in_one_line(module, message, tmp_path, monkeypatch, capsys):
    if module is not None:
        (tmp_path / "task.py").write_text(textwrap.dedent(module))
    monkeypatch.setenv(tasks.FILES, str(tmp_path / "task.py"))
    with pytest.raises(ConfigError, match=message):
        find("KS")
    assert main(["superb", "score", "ks=96"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def made(**changes):
    metrics = (Metric("acc", "Acc", "%", HIGHER, lambda output: 1.0),)
    return SuperbTask(
        **{"name": "Days", "title": "days", "downstream": "emotion", "metrics": metrics, **changes}
    )


def test_a_task_is_registered_for_this_process(monkeypatch):
    monkeypatch.setattr(tasks, "_registered", [])
    task = made()
    register(task)
    assert find("days") is task and all_tasks()[-1] is task
    with pytest.raises(ConfigError, match="task Days: name is taken by days"):
        register(made())


def test_all_faults_of_a_task_are_named():
    with pytest.raises(ConfigError) as caught:
        made(
            track="fun",
            dev_better="more",
            parts=(TaskPart("a"), TaskPart("b")),
            predictions=(Prediction("x", "y", lambda files: None, part="c"),),
        )
    for fault in (
        "task Days: track is 'fun', allowed: SUPERB, SUPERB-SG, extra",
        "dev_better is 'more', allowed: higher, lower",
        "x is of part 'c', allowed: 'a', 'b'",
    ):
        assert fault in str(caught.value)
    with pytest.raises(ConfigError, match="metrics is empty"):
        made(metrics=())
