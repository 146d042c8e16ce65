"""SE, SS, VC and recognition of other languages run by the recipes that ship, with small models."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.end_to_end.test_downstreams import assert_trained, upstream
from tests.helpers.miniature_sg_tasks import TASKS
from tests.helpers.s3prl_runs import Experiment

__all__ = ["upstream"]

SCORED = pytest.mark.skipif(
    find_spec("pesq") is None or find_spec("pystoi") is None,
    reason="superb_sg is an extra, compiled when it is installed",
)
TRANSLATES = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("fairseq", "sacrebleu", "sentencepiece", "sacremoses")),
    reason="fairseq is built by hand, as the page of ST says",
)
MARKS = {"se": SCORED, "ss": SCORED, "st": TRANSLATES}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in TASKS])
def test_trains_evaluates_and_resumes(name, tmp_path, upstream):
    experiment = Experiment(name, tmp_path, upstream)
    done = experiment.several(experiment.train, experiment.evaluate, experiment.resume).ok()
    assert_trained(experiment, done.out)
    assert "s3prl-dphubert" not in done.err  # no complaint


@SCORED
def test_filter_banks_are_an_upstream_too(tmp_path):
    """Their frames are 10 ms apart, and so are those of the spectra then."""
    experiment = Experiment("se", tmp_path, ["-u", "fbank"])
    done = experiment.several(experiment.train, experiment.evaluate).ok()
    assert len(experiment.scores(done.out)) == 3


def test_there_are_five_tasks():
    assert len(TASKS) == 5
