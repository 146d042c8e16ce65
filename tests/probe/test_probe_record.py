import json

import numpy as np
import pytest

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.probe.probe_record import ProbeRecord, file_name, read_all
from tests.helpers.probe_records import record


def test_a_record_comes_back_as_it_was_written(tmp_path):
    before = record("a", 60.0)
    before.write(tmp_path / "a.probe.json")
    after = ProbeRecord.read(tmp_path / "a.probe.json")
    assert (after.model, after.source, after.facts, after.corpus) == (
        before.model, before.source, before.facts, before.corpus,
    )  # fmt: skip
    assert (after.curves, after.chance, after.seconds, after.cpu_seconds) == (
        before.curves,
        before.chance,
        before.seconds,
        before.cpu_seconds,
    )
    assert [each.estimate for each in after.scores] == [each.estimate for each in before.scores]
    assert [each.details for each in after.scores] == [each.details for each in before.scores]
    trials = [each.score("verification", "best layer").statistic for each in (before, after)]
    assert (trials[0].counts == trials[1].counts).all()
    assert (trials[0](np.ones((1, 4))) == trials[1](np.ones((1, 4)))).all()


def test_the_file_states_value_error_and_interval(tmp_path):
    record("a", 60.0).write(tmp_path / "a.probe.json")
    values = json.loads((tmp_path / "a.probe.json").read_text())
    score = next(
        each for each in values["scores"] if (each["probe"], each["head"]) == ("words", "best layer")
    )
    low, high = score["interval_95"]
    assert low < score["value"] < high and score["standard_error"] > 0
    assert score["by_voice"]["groups"] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(format=7), "format is 7, allowed: 1"),
        (lambda values: values.pop("scores"), "has no 'scores'"),
        (lambda values: values["scores"][0].pop("by_voice"), "has no 'by_voice'"),
        (lambda values: values["scores"][0]["by_voice"].update(kind="x"), "kind of a statistic is 'x'"),
        (lambda values: values.update(curves=3), "not readable as a record of probes"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, change, message):
    path = tmp_path / "a.probe.json"
    record("a", 60.0).write(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ResultError, match=message):
        ProbeRecord.read(path)


def test_records_of_different_corpora_do_not_mix(tmp_path):
    record("a", 60.0).write(tmp_path / "a.probe.json")
    record("b", 50.0, corpus="other").write(tmp_path / "b.probe.json")
    with pytest.raises(ResultError, match="another corpus"):
        read_all([tmp_path])
    with pytest.raises(ResultError, match="no records of probes"):
        read_all([])


def test_names_of_files_are_safe():
    assert file_name("random hubert_mini") == "random-hubert_mini.probe.json"
    assert file_name("../a/b") == "..-a-b.probe.json"
