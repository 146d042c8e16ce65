"""The scripts for SLURM, run with stand-ins for its two commands and everything else real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from s3prl_dphubert import load_model
from s3prl_dphubert.superb.tasks import core_tasks
from tests.helpers.compression_runs import make_place
from tests.helpers.forked_processes import free_port
from tests.helpers.golden import ROOT

SCRIPTS = ROOT / "examples" / "slurm"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
[[ $1 == show ]] && { echo localhost; exit; }
echo "scontrol $*" >> "$LOG"
"""


@pytest.fixture
def cluster(tmp_path):
    """Environment of a job on a machine whose commands of SLURM are stand-ins."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": "7",
        "MASTER_PORT": str(free_port()),
        "LOG": str(tmp_path / "scontrol.log"),
    }


@pytest.mark.parametrize("name", ["compress.sbatch", "superb_run.sbatch"])
def test_scripts_are_bash_that_explains_itself(name):
    text = (SCRIPTS / name).read_text()
    assert subprocess.run(["bash", "-n", SCRIPTS / name]).returncode == 0
    assert f"examples/slurm/{name}" in text and "#SBATCH --time=" in text
    assert f"(slurm/{name})" in (ROOT / "examples" / "README.md").read_text()


def test_every_task_has_a_job():
    text = (SCRIPTS / "superb_run.sbatch").read_text()
    tasks = re.search(r"tasks=\((.*)\)", text)[1].split()
    assert sorted(tasks) == sorted(task.name.lower() for task in core_tasks())
    assert f"--array=0-{len(tasks) - 1}\n" in text


@pytest.mark.slow
@pytest.mark.torchrun
def test_a_run_ends_with_a_model(cluster, tmp_path):
    place = make_place(tmp_path)
    words = ["bash", SCRIPTS / "compress.sbatch", place / "run.yaml", tmp_path / "run"]
    few = ["--set", "stage1.updates=6", "--set", "stage2.updates=4", "--set", "device=cpu"]
    done = subprocess.run([*words, *few], capture_output=True, text=True, env=cluster)
    assert done.returncode == 0, done.stderr[-3000:]
    load_model(tmp_path / "run" / "model")
    written = (tmp_path / "run" / "config.yaml").read_text()
    assert written.count("accumulate: 4") == 2  # one process makes the update of four micro-batches


@pytest.mark.slow
def test_a_job_whose_time_is_over_goes_back_into_the_queue(cluster, tmp_path):
    (tmp_path / "bin" / "torchrun").write_text("#!/bin/bash\nsleep 1\nexit 3\n")
    (tmp_path / "bin" / "torchrun").chmod(0o755)
    job = subprocess.Popen(
        ["bash", SCRIPTS / "compress.sbatch", "x", "y"], env=cluster, stdout=subprocess.PIPE
    )
    subprocess.run(["sleep", "0.5"], check=True)
    job.send_signal(10)  # SIGUSR1
    assert b"back into the queue" in job.communicate()[0]
    assert job.returncode == 3
    assert (tmp_path / "scontrol.log").read_text() == "scontrol requeue 7\n"


@pytest.mark.slow
def test_a_job_of_an_array_runs_its_task(cluster, tmp_path):
    words = [
        "bash",
        SCRIPTS / "superb_run.sbatch",
        tmp_path / "out",
        tmp_path,
        "--upstream",
        "fbank",
        "--check",
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**cluster, "SLURM_ARRAY_TASK_ID": "2"}, cwd=tmp_path
    )
    assert "KS" in done.stdout and "PR" not in done.stdout, done.stdout + done.stderr
