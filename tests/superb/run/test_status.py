"""Progress of a run, read from the files in its folder."""

from __future__ import annotations

import json

from s3prl_dphubert.cli import main
from s3prl_dphubert.superb.run.status import status
from s3prl_dphubert.superb.run.workers import logs
from s3prl_dphubert.superb.scoring import score_file
from tests.helpers.superb_runs import plan


def states(out):
    return [(state.name, state.state, state.text) for state in status(out)]


def test_status_tells_waiting_running_failed_and_done(tmp_path):
    plan(tmp_path, "ks,er,sid").write()
    out = tmp_path / "out"
    folds = [(f"er fold{number}", "waiting", "") for number in range(1, 6)]
    assert states(out) == [("ks", "waiting", ""), ("sid", "waiting", ""), *folds]

    train = out / "ks" / "train-lr1e-03"
    train.mkdir(parents=True)
    made_from = {"config": {"runner": {"total_steps": 200}}}
    (train / "state.json").write_text(json.dumps({"made_from": made_from}))
    (train / "states-50.ckpt").write_bytes(b"")
    assert states(out)[0] == ("ks lr 1e-03", "stopped", "at step 50 of 200")
    bar = "overall:  30%|###       | 60/200 [00:10<00:23,  6.00it/s]"
    with logs.own(out / "ks" / "train-lr1e-03.log") as log:
        assert states(out)[0] == ("ks lr 1e-03", "running", "trains, begins")
        log.write(bar.encode())
        log.flush()
        assert states(out)[0] == ("ks lr 1e-03", "running", "trains, 60 of 200, 6.00it/s, 00:23 left")
    (train / "states-200.ckpt").write_bytes(b"")
    assert states(out)[0] == ("ks lr 1e-03", "stopped", "trained, to be evaluated")
    with logs.own(out / "ks" / "evaluate.log") as log:
        assert states(out)[0] == ("ks", "running", "evaluates")

    (out / "er" / "fold2").mkdir(parents=True)
    failed = {
        "what": "er fold2",
        "error": "s3prl ended with status 1; the last lines of x:\nTraceback\nOops: no",
    }
    (out / "er" / "fold2" / "failed.json").write_text(json.dumps(failed))
    assert ("er fold2", "failed", "Oops: no") in states(out)

    made = score_file.ScoreRecord(
        "SID", "fbank", {"acc": 81.42}, 0, 1e-4, "0.4.18", "2026-11-24T10:00:00", "x"
    )
    score_file.write(made, out / "sid")
    assert ("sid", "done", "acc 81.42") in states(out)


BAR = "overall:   0%|          | 0/40 [00:00<?, ?it/s]"


def test_a_failure_after_a_score_is_shown_with_its_reason(tmp_path, capsys):
    """s3prl's progress bar writes itself once more when it is closed, behind the traceback."""
    plan(tmp_path, "sid").write()
    folder = tmp_path / "out" / "sid"
    score = score_file.ScoreRecord("SID", "fbank", {"acc": 80}, 0, 1e-4, "0.4.18", "2026-11-24T10:00:00", "x")
    score_file.write(score, folder)
    assert states(tmp_path / "out") == [("sid", "done", "acc 80.00")]
    shown = (
        "the last lines of train.log:",
        "Traceback",
        "a.b.DataError: a.wav: unreadable",
        "train: 0it [00:00]",
        BAR,
    )
    (folder / "failed.json").write_text(json.dumps({"what": "sid", "error": "\n".join(shown)}))
    assert states(tmp_path / "out") == [("sid", "failed", "a.b.DataError: a.wav: unreadable")]
    assert main(["superb", "report", str(tmp_path / "out")]) == 2
    assert "left out: SID of fbank: its last run failed (the last lines" in capsys.readouterr().err


def test_status_while_data_are_prepared_and_after_that_failed(tmp_path):
    plan(tmp_path, "er").write()
    folder = tmp_path / "out" / "er"
    folder.mkdir()
    with logs.own(folder / "prepare.log") as log:
        log.write(b"lexicon:  50%|#####     | 5/10 [00:10<00:10,  2.00s/it]")
        log.flush()
        assert states(tmp_path / "out") == [("er", "running", "prepares 5 of 10, 2.00s/it, 00:10 left")]
    (folder / "failed.json").write_text(json.dumps({"what": "preparation", "error": "no such folder"}))
    assert states(tmp_path / "out") == [("er", "failed", "no such folder")]


def test_status_of_another_folder_is_refused(tmp_path, capsys):
    assert main(["superb", "status", str(tmp_path)]) == 2
    assert "is no folder of a run; it holds no run.json" in capsys.readouterr().err
