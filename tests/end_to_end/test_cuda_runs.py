"""s3prl on a GPU: its downstream training, and ``superb run``."""

from __future__ import annotations

import json
import math
import os
from importlib.util import find_spec

import pytest

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.superb.scoring import score_file
from tests.helpers.golden import ROOT
from tests.helpers.models import tiny
from tests.helpers.s3prl_runs import Experiment, assert_resumed, python, read_states
from tests.helpers.superb_runs import corpora, recipes, run, upstream

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.slow,
    pytest.mark.s3prl,
    pytest.mark.skipif(find_spec("s3prl") is None, reason="s3prl is an extra"),
]
REGISTERED = """
import json, sys
from s3prl_dphubert import register
register()
from s3prl import run_downstream
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["run_downstream", *arguments]
    run_downstream.main()
"""  # as `python -m s3prl.run_downstream` where this package is installed


def on_gpu(arguments):
    return ["cuda" if word == "cpu" else word for word in arguments]


def path_of_this_package():
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))


@pytest.mark.parametrize("options", [[], ["-o", "config.runner.fp16=True"]], ids=["float32", "autocast"])
def test_ks_trains_evaluates_and_resumes(tmp_path, options):
    model = save_model(tiny("wavlm"), tmp_path / "tiny")
    experiment = Experiment("ks", tmp_path, ["-u", "dphubert_local", "-k", str(model)])
    starts = [[*experiment.train, *options], experiment.evaluate, experiment.resume]
    text = json.dumps([on_gpu(start) for start in starts])
    done = python("-c", REGISTERED, text, cwd=tmp_path, PYTHONPATH=path_of_this_package()).ok()
    assert len(experiment.scores(done.out)) == 1
    assert_resumed(experiment.checkpoint(2), experiment.checkpoint(4), 4)


def test_superb_run_takes_the_gpu_that_it_is_given(tmp_path):
    corpora(tmp_path / "data", ["ks"])
    recipes(tmp_path / "recipes")
    upstream(tmp_path / "model")
    done = run(tmp_path, "ks", "--device", "cuda", "--gpus", "0")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    score = score_file.read(tmp_path / "out" / "ks" / score_file.FILE)
    assert all(map(math.isfinite, score.metrics.values())) and score.metrics
    checkpoint = read_states(next((tmp_path / "out" / "ks").rglob("states-2.ckpt")))
    assert checkpoint["Args"].device == "cuda"
