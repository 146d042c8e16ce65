"""SE, SS, VC and recognition of other languages run with a compressed upstream, by the recipes that ship."""

from __future__ import annotations

import pytest
from miniature_sg_tasks import TASKS
from s3prl_runs import Experiment
from test_downstreams import assert_trained, upstream

__all__ = ["upstream"]


@pytest.mark.parametrize("name", TASKS)
def test_trains_evaluates_and_resumes(name, tmp_path, upstream):
    experiment = Experiment(name, tmp_path, upstream)
    done = experiment.several(experiment.train, experiment.evaluate, experiment.resume).ok()
    assert_trained(experiment, done.out)
    assert "s3prl-dphubert" not in done.err  # no complaint
