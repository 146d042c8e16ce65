"""Start, watch and end of s3prl's processes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from s3prl_dphubert.errors import RunError
from s3prl_dphubert.superb.run.progress import Reporter
from s3prl_dphubert.superb.run.workers import logs
from s3prl_dphubert.superb.run.workers.launcher import Launcher, StoppedError
from tests.helpers.superb_runs import environment

SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
BARS = (
    "overall:   0%|          | 0/200 [00:00<?, ?it/s]\rtrain: 50%|#####     | 1/2 [00:00<00:00, 7.00it/s]\r"
    "overall:  12%|█▏        | 24/200 [00:10<01:13,  2.40it/s]"
)


def test_scores_do_not_depend_on_what_is_fast_here(tmp_path, monkeypatch):
    monkeypatch.setenv("S3PRL_DPHUBERT_PRECISION", "bf16")
    show = "import os; print(os.environ['S3PRL_DPHUBERT_PRECISION'])"
    with Launcher() as launcher:
        assert launcher.program([sys.executable, "-c", show], tmp_path / "x.log", tmp_path) == "fp32\n"


def test_the_tail_has_what_a_progress_bar_left():
    assert logs.tail("a\nb: 1%\rb: 2%\rb: 3%\n\nc\r\n") == "a\nb: 3%\nc"
    assert len(logs.tail("x\n" * 99).splitlines()) == logs.SHOWN


def test_progress_is_what_the_last_bar_says(tmp_path):
    log = tmp_path / "x.log"
    assert logs.progress(log) is None
    log.write_text("nothing yet\n")
    assert logs.progress(log) is None
    log.write_text(f"{'x' * 100_000}\n{BARS}")
    assert logs.progress(log, logs.OVERALL) == logs.Progress(24, 200, "01:13", "2.40it/s")
    assert str(logs.progress(log)) == "24 of 200, 2.40it/s, 01:13 left"
    assert logs.progress(log, "train") == logs.Progress(1, 2, "00:00", "7.00it/s")
    log.write_text(BARS[:50])
    assert logs.progress(log, logs.OVERALL) == logs.Progress(0, 200, "?", "?it/s")


def test_a_job_tells_how_far_it_is_now_and_then(tmp_path):
    out, log = io.StringIO(), tmp_path / "x.log"
    look = Reporter(out, every=0).watch("pr", "trains", log, logs.OVERALL)
    look()
    log.write_text(BARS)
    look()
    line = r"\d\d:\d\d:\d\d  pr +trains: 24 of 200, 2\.40it/s, 01:13 left\n"
    assert re.fullmatch(line, out.getvalue())
    seldom = Reporter(out, every=1000).watch("pr", "trains", log)
    seldom()
    assert out.getvalue().count("\n") == 1


def test_a_failure_shows_the_end_of_the_log_and_where_it_is(tmp_path):
    command = [sys.executable, "-c", "print('one'); raise SystemExit('the cause')"]
    with Launcher() as launcher, pytest.raises(RunError) as caught:
        launcher.program(command, tmp_path / "x.log", tmp_path)
    assert str(caught.value).startswith(f"s3prl ended with status 1; the last lines of {tmp_path / 'x.log'}:")
    assert {"one", "the cause"} <= set(str(caught.value).splitlines())


def test_a_process_that_outlived_its_parent_is_left_alone(tmp_path):
    """Where nothing can end it, it goes on writing; a second must not write to the same folder."""
    log = tmp_path / "x.log"
    script = (
        "import sys; from pathlib import Path\n"
        "from s3prl_dphubert.superb.run.workers.launcher import Launcher\n"
        f"Launcher().program([sys.executable, '-c', {SLEEP!r}], Path({str(log)!r}), Path({str(tmp_path)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    while not (log.exists() and log.read_text().endswith("\n")):
        time.sleep(0.05)
    pid = int(log.read_text())
    parent.kill()
    parent.wait()
    again = [sys.executable, "-c", "print(1)"]
    with Launcher() as launcher:
        try:
            with pytest.raises(RunError, match="a process of an earlier start still writes it"):
                launcher.program(again, log, tmp_path)
            assert int(log.read_text()) == pid
            assert logs.busy(log)
        finally:
            os.kill(pid, signal.SIGKILL)
        until_free(log)
        assert launcher.program(again, log, tmp_path) == "1\n"


def until_free(log: Path) -> None:
    """The system takes a moment to end what was killed."""
    for _ in range(400):
        if not logs.busy(log):
            return
        time.sleep(0.05)
    raise TimeoutError(log)


def test_closing_ends_what_runs_and_refuses_more(tmp_path):
    launcher, log, raised = Launcher(), tmp_path / "x.log", []

    def work():
        try:
            launcher.program([sys.executable, "-c", SLEEP], log, tmp_path)
        except RunError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not (log.exists() and log.read_text().endswith("\n")):
        time.sleep(0.05)
    launcher.close()
    thread.join(timeout=20)
    assert [type(error) for error in raised] == [StoppedError]
    assert not logs.busy(log)
    with pytest.raises(StoppedError):
        launcher.run("measure", [], log, tmp_path)


@pytest.mark.slow
@pytest.mark.s3prl
def test_jobs_share_an_import_and_their_failures_are_told(tmp_path):
    def arguments(name):
        return [str(tmp_path / f"{name}.json"), json.dumps({"name": name, "called": {}})]

    with Launcher(environment(tmp_path)) as launcher:
        log = tmp_path / "x.log"
        launcher.run("measure", arguments("fbank"), log, tmp_path)
        with pytest.raises(RunError, match=r"(?s)ended with status 1.*has no upstream 'nothing'"):
            launcher.run("measure", arguments("nothing"), log, tmp_path)
        with logs.own(log), pytest.raises(RunError, match="a process of an earlier start still writes it"):
            launcher.run("measure", arguments("fbank"), log, tmp_path)
        server = launcher._server
    assert json.loads((tmp_path / "fbank.json").read_text())["layers"] == 1
    assert server.poll() == 0  # it ended when it was told to
