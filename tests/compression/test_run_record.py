"""Records of runs: whole ones, several sizes, and what is left when parts are missing or damaged."""

from __future__ import annotations

import json
import shutil

import pytest

from s3prl_dphubert import compress, load_model
from s3prl_dphubert.checkpoints.units_figure import UnitCounts
from s3prl_dphubert.compression.run_record import Cost, RunRecord, read_runs
from s3prl_dphubert.errors import RunError
from s3prl_dphubert.model.cost import macs, parameters
from tests.helpers.compression_runs import STAGE, make_place

pytestmark = pytest.mark.slow
QUICK = {**STAGE, "updates": 4, "warmup": 1, "validate_every": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("place"))
    compress(place / "run.yaml", place / "whole", stage1=QUICK, stage2=QUICK)
    return place


@pytest.fixture
def run(place, tmp_path):
    """A copy of a finished run, to break."""
    return shutil.copytree(place / "whole", tmp_path / "whole")


def test_a_finished_run_says_everything(place):
    (run,) = read_runs(place / "whole")
    teacher, model = (load_model(place / name).config for name in ("teacher", "whole/model"))
    assert (run.name, run.state, run.missing) == ("whole", "finished", ())
    assert (run.teacher, run.seconds) == (str(place / "teacher"), 1.0)
    assert run.cost == Cost(parameters(model), macs(model, 16_000))
    assert run.teacher_cost == Cost(parameters(teacher), macs(teacher, 16_000))
    assert run.units == UnitCounts.of(model) != run.teacher_units == UnitCounts.of(teacher)
    assert list(run.losses) == ["teacher_copy", "stage1", "pruned", "stage2"]
    assert [row["update"] for row in run.stage1] == [1, 2, 3, 4]
    assert run.weights_bytes == (place / "whole/model/model.safetensors").stat().st_size
    assert set(run.environments) == {"stage1", "stage2"}
    assert {"processor", "python", "torch", "device", "threads"} <= run.environments["stage2"].keys()


def test_each_size_is_a_run(place, tmp_path):
    out = tmp_path / "sizes"
    compress(place / "run.yaml", out, sizes=[0.2, 0.3], stage1=QUICK, stage2=QUICK)
    small, smaller = read_runs(out)
    assert (small.name, smaller.name) == ("sizes/0.2", "sizes/0.3")
    assert small.missing == smaller.missing == ()
    assert small.cost.parameters > smaller.cost.parameters
    shutil.rmtree(out / "0.3")
    assert [run.name for run in read_runs(out)] == ["sizes/0.2"]


def test_an_unfinished_run_says_what_it_lacks(run):
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "stage2")
    results = json.loads((run / "results.json").read_text())
    for name in ("teacher", "model", "macs_seconds", "environment"):
        del results[name]
    (run / "results.json").write_text(json.dumps(results))
    record = RunRecord.read(run)
    assert record.state == "pruned, stage 2 is not finished"
    assert record.model == run / "pruned" and record.cost is not None
    assert (record.teacher_cost, record.teacher_units, record.environments) == (None, None, {})
    assert record.missing == (
        "results.json has no cost of the teacher, which is written when the run finishes",
        "stage2/log.jsonl is missing or empty: no curves of this stage",
    )
    shutil.rmtree(run / "pruned")
    (run / "results.json").unlink()
    record = RunRecord.read(run)
    assert (record.state, record.cost, record.units) == ("not finished", None, None)
    assert "no model yet: stage 1 is not finished" in record.missing
    assert any(text.startswith("results.json is missing") for text in record.missing)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{",
        '{"teacher": {"heads": 3, "parameters": "x"}, "valid": 5, "macs_seconds": 1e999}',
        '{"teacher": {"conv": [HUGE], "heads": [[0]], "ffn": [1], "parameters": HUGE, "macs": HUGE}}',
        '{"valid": {"stage2": {"loss": 1e999}}, "environment": [], "macs_seconds": -1}',
    ],
)
def test_damaged_results_count_as_missing(run, content):
    (run / "results.json").write_text(content.replace("HUGE", "1" + 400 * "0"))
    record = RunRecord.read(run)
    assert (record.losses, record.teacher_cost, record.teacher_units, record.environments) == (
        {},
        None,
        None,
        {},
    )
    assert record.seconds == 10.0 and record.cost is not None


def test_a_damaged_model_is_named(run):
    (run / "model" / "config.json").write_text("{")
    record = RunRecord.read(run)
    assert record.state == "pruned, stage 2 is not finished"
    assert any(text.startswith("the units of the model cannot be shown") for text in record.missing)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(RunError, match="no such folder, allowed: the folder after --out of compress"):
        read_runs(tmp_path / "nothing")
    with pytest.raises(RunError, match="holds no run of compress"):
        read_runs(tmp_path)
