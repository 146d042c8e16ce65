"""Runs of SUPERB that are killed go on where they were, and end as one that was left alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest

from s3prl_dphubert.superb.run.status import status
from s3prl_dphubert.superb.run.workers import logs
from s3prl_dphubert.superb.scoring import score_file
from s3prl_dphubert.utils.readers import read_record
from tests.helpers.superb_runs import command, corpora, environment, recipes, run, upstream

pytestmark = [pytest.mark.slow, pytest.mark.s3prl]

STEPS = 30
PATIENCE = 240  # seconds; the box may be busy


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Phoneme recognition with all of its training set in a batch: which order it comes in makes no
    difference, and s3prl's resumption, which draws another one, none either."""
    folder = tmp_path_factory.mktemp("killed")
    corpora(folder / "data", ["pr"])
    recipes(folder / "recipes", ["pr"], total_steps=STEPS, save_step=10, eval_step=10)
    upstream(folder / "model")
    return folder


BATCH = ("--set", "downstream_expert.corpus.batch_size=12")


class Doomed:
    """A run in a process group of its own, which is killed."""

    def __init__(self, place):
        self.out = place / "doomed"
        self.process = subprocess.Popen(
            command(place, "pr", *BATCH, out="doomed"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=place,
            env=environment(place),
            start_new_session=True,
        )

    def when(self, condition):
        """Wait until it holds, and kill the run there."""
        until = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.005)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        folder = self.out / "pr"
        left = [folder / name for name in ("prepare.log", "train.log", "evaluate.log")]
        while any(logs.busy(log) for log in left):  # the children follow it by themselves
            assert time.monotonic() < until
            time.sleep(0.05)
        return folder


def test_a_run_killed_at_every_stage_ends_like_one_left_alone(place):
    done = run(place, "pr", *BATCH, out="whole")
    assert done.returncode == 0, done.stdout + done.stderr

    folder = Doomed(place).when(lambda: (place / "doomed" / "pr" / "prepare.log").exists())
    assert not (folder / "train" / "states-10.ckpt").exists()

    def stepped(step):
        result = logs.progress(folder / "train.log", logs.OVERALL)
        return result is not None and result.done >= step

    Doomed(place).when(lambda: (folder / "train.log").exists() and stepped(0))
    first = sorted(path.name for path in (folder / "train").glob("states-*"))
    assert first == [], "it was to be killed before the first checkpoint"

    Doomed(place).when(lambda: (folder / "train" / "states-10.ckpt").exists())
    checkpoints = sorted(path.name for path in (folder / "train").glob("states-*"))
    assert checkpoints
    (state,) = status(place / "doomed")
    assert (state.name, state.state) == ("pr", "stopped")
    assert re.fullmatch(rf"at step [12]0 of {STEPS}|trained, to be evaluated", state.text)

    half = folder / "train" / "states-20.ckpt"
    if not half.exists():  # as another s3prl would leave it, killed while it saves
        half.write_bytes((folder / "train" / checkpoints[-1]).read_bytes()[:1000])
    Doomed(place).when(lambda: logs.busy(folder / "evaluate.log"))
    assert (folder / "train" / f"states-{STEPS}.ckpt").exists()
    assert re.search(r"Resume from .*/states-[12]0\.ckpt", logs.text(folder / "train.log"))
    assert not (folder / score_file.FILE).exists()
    assert not (folder / "evaluated.json").exists()

    last = run(place, "pr", *BATCH, out="doomed")
    assert last.returncode == 0, last.stdout + last.stderr
    assert "trains" not in last.stdout
    assert not list((place / "doomed").rglob("*.part"))
    one, other = (place / name / "pr" for name in ("whole", "doomed"))
    for name in ("test-hyp.ark", "test-ref.ark"):
        assert (one / name).read_text() == (other / name).read_text()
    result, wanted = score_file.read(other / score_file.FILE), score_file.read(one / score_file.FILE)
    assert result.metrics == wanted.metrics
    assert result.checkpoints == wanted.checkpoints
    key = "made_from"
    assert read_record(one / "train" / "state.json")[key] == read_record(other / "train" / "state.json")[key]


def test_an_interrupted_run_ends_its_children_and_says_how_to_go_on(place):
    words = command(place, "pr", *BATCH, "--set", "runner.total_steps=100000", out="long")
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
        env=environment(place),
        start_new_session=True,
        # A shell ignores it for what it starts in the background, and that is handed down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log, until = place / "long" / "pr" / "train.log", time.monotonic() + PATIENCE
    while not (logs.busy(log) and logs.progress(log, logs.OVERALL)):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    (state,) = status(place / "long")
    assert (state.name, state.state) == ("pr", "running")
    assert re.fullmatch(r"trains, \d+ of 100000, \S+, \S+ left", state.text)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; the same command goes on from here" in errors
    assert "failed" not in out
    assert not logs.busy(log)
    (state,) = status(place / "long")
    assert state.state == "stopped"
