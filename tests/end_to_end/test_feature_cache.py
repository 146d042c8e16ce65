"""s3prl's own runs with cached hidden states: the same weights and scores as without, epoch after epoch.

Each task is trained and evaluated three times on one corpus, in one process for all: without a cache, with
an empty one and with the full one. Keyword spotting comes late, since from then on, in the whole process,
an utterance is stored when it is met for the second time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from s3prl_dphubert.checkpoints.directory import save_model
from tests.helpers.models import tiny
from tests.helpers.s3prl_runs import Experiment, python

pytestmark = [pytest.mark.slow, pytest.mark.s3prl]

NAMES = ("asr", "pr", "er", "ic", "sf", "sd", "ks")
CHOSEN = ("er", ["-l", "1", "--upstream_feature_normalize"])
"""A task once more with what chooses and normalizes hidden states."""

STEPS = 4
MARK = "=== next start of s3prl ==="
MARKED = f"""
import builtins, json, sys
from s3prl import run_downstream
kept = builtins.isinstance
for arguments in json.loads(sys.argv[1]):
    print("{MARK}", flush=True)
    sys.argv = ["run_downstream", *arguments]
    try:
        run_downstream.main()
    except ValueError as error:
        print("refused:", error, flush=True)
    builtins.isinstance = kept  # which s3prl wraps twice as deep at every start
"""
TOLD = re.compile(
    r"hidden states of (\d+) utterances were read and of (\d+) computed \((\d+) stored\): "
    r"[\d.]+ s instead of [\d.]+ s, speed-up of the upstream [\d.]+\n"
)


class Run:
    """One training and evaluation of a task, in a folder of its own."""

    def __init__(self, experiment, name, cache=None, more=()):
        self.experiment, own = experiment, experiment.folder
        self.folder, options = own.with_name(name), own.with_name(f"{name}.yaml")
        features = {} if cache is None else {"features": {"cache": str(cache), "limit": "50MB"}}
        options.write_text(yaml.safe_dump({"padding": "exact"} | features))
        start = [argument.replace(str(own), str(self.folder)) for argument in experiment.train]
        self.train = [*start, "-g", str(options), *more, "-o", f"config.runner.total_steps={STEPS}"]
        last = str(self.folder / f"states-{STEPS}.ckpt")
        self.evaluate = ["-m", "evaluate", "-t", experiment.task.split, "-e", last, "--device", "cpu"]
        self.scores = []

    @property
    def weights(self):
        """Everything that was trained, and the optimizer's moments."""
        saved = torch.load(self.folder / f"states-{STEPS}.ckpt", weights_only=False)
        assert saved["Step"] == STEPS
        moments = saved["Optimizer"]["state"].values()
        return [*saved["Downstream"].values(), *saved["Featurizer"].values()], [
            value for state in moments for value in state.values()
        ]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    path = tmp_path_factory.mktemp("upstream") / "tiny"
    return ["-u", "dphubert_local", "-k", str(save_model(tiny("hubert"), path))]


@pytest.fixture(scope="module")
def done(tmp_path_factory, upstream):
    """Task -> its three runs; what refused starts said; and what a cache brought, start by start."""
    place = tmp_path_factory.mktemp("runs")
    cache, runs, experiments = place / "cache", {}, {}
    for name in (*NAMES, "sid"):
        (place / name).mkdir()
        experiments[name] = Experiment(name, place / name, upstream)
    for name in NAMES:
        given = (("plain", None), ("empty", cache), ("full", cache))
        runs[name] = [Run(experiments[name], called, where) for called, where in given]
    task, more = CHOSEN
    given = (("chosen-plain", None), ("chosen-full", cache))
    runs["chosen"] = [Run(experiments[task], called, where, more) for called, where in given]
    starts = [start for each in runs.values() for run in each for start in (run.train, run.evaluate)]
    refused = [Run(experiments["er"], "tuned", cache, ["-f"]), Run(experiments["sid"], "cropped", cache)]
    starts += [run.train for run in refused]
    ended = python("-c", MARKED, json.dumps(starts), cwd=place).ok()
    outputs = ended.out.split(MARK)[1:]
    assert len(outputs) == len(starts) == 48
    for run in (run for each in runs.values() for run in each):
        run.scores = run.experiment.scores(outputs[1])
        del outputs[:2]
    counts = [tuple(map(int, numbers)) for numbers in TOLD.findall(ended.err)]
    return runs, outputs, counts[::-1]  # what is registered last speaks first


@pytest.mark.parametrize("name", NAMES)
def test_the_same_as_without_a_cache(name, done):
    plain, empty, full = done[0][name]
    assert len(plain.scores) == len(plain.experiment.task.scores) > 0
    assert full.scores == empty.scores == pytest.approx(plain.scores, rel=1e-5)
    (trained, moments), (again, momentsagain) = empty.weights, full.weights
    assert len(trained) + len(moments) == len(again) + len(momentsagain) > 6
    assert all(map(torch.equal, trained + moments, again + momentsagain))
    for a, b in zip(plain.weights[0], trained, strict=True):  # which differ by the rounding to fp16
        torch.testing.assert_close(a.float(), b.float(), atol=STEPS * 1e-3, rtol=1e-3)


def test_chosen_and_normalized_hidden_states(done):
    plain, full = done[0]["chosen"]
    assert full.scores == pytest.approx(plain.scores, rel=1e-5)
    weights = [run.weights[0] for run in (plain, full)]
    for a, b in zip(*weights, strict=True):
        torch.testing.assert_close(a.float(), b.float(), atol=STEPS * 1e-3, rtol=1e-3)
    other = done[0][CHOSEN[0]][0].weights[0]
    assert not all(map(torch.equal, weights[0], other))


def test_the_upstream_runs_once_an_utterance(done):
    """Counts that each start of s3prl reports at its end: training and evaluation, empty and full cache."""
    counts = dict(zip(NAMES, zip(*[iter(done[2][: 4 * len(NAMES)])] * 4, strict=True), strict=True))
    assert len(done[2]) == 4 * len(NAMES) + 2  # and of the chosen hidden states; the refused tell nothing
    for name in NAMES[:-1]:
        for read, computed, stored in counts[name]:
            assert computed == stored, name
            assert read + computed > 1
        assert [computed for _, computed, _ in counts[name][2:]] == [0, 0], name
    assert counts["asr"][0][1] > 0
    assert counts["pr"][0][1] < counts["asr"][0][1] / 2  # the two tasks have the same audio
    assert done[2][-2][1] == done[2][-1][1] == 0
    silence = counts["ks"]
    assert silence[0][1] > silence[0][2]  # stored from the second time on
    assert silence[2][1] <= silence[0][1] - silence[0][2]


def test_what_is_refused(done):
    tuned, cropped = done[1]
    assert "refused: features: hidden states are kept for frozen upstreams only" in tuned
    assert "refused: features: voxceleb1 cuts 8 s out of longer utterances at random" in cropped


def test_processes_side_by_side_one_of_them_killed(done, upstream, tmp_path):
    """Two runs share an empty cache and a third is killed in the midst; they end as the run alone did."""
    experiment, cache = done[0]["er"][0].experiment, tmp_path / "cache"
    runs = [Run(experiment, f"beside{n}", cache) for n in range(3)]
    environment = os.environ | {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "s3prl.run_downstream", *run.train],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for run in runs
    ]
    ends = time.monotonic() + 300
    while not any(path.stat().st_size for path in cache.glob("*/states.f16")) and time.monotonic() < ends:
        time.sleep(0.01)
    started[0].send_signal(signal.SIGKILL)
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [-signal.SIGKILL, 0, 0], said
    for run in runs[1:]:
        assert all(map(torch.equal, run.weights[0], done[0]["er"][1].weights[0]))
    whole, index = (sum(p.stat().st_size for p in cache.glob(f"*/{n}")) for n in ("states.f16", "index"))
    assert whole > index > 0
