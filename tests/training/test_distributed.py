"""Several processes: they compute what one does, and none outlives another's death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from s3prl_dphubert import compress, load_model
from s3prl_dphubert.errors import DataError, RunError
from s3prl_dphubert.pruning.budget import Budget
from s3prl_dphubert.training import distributed as exchange
from s3prl_dphubert.training import heartbeat
from s3prl_dphubert.training.distributed import Processes, join
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.training.trainer import Trainer
from tests.helpers.compression_runs import distillation, make_place, read_config, settings, stream_of
from tests.helpers.forked_processes import finish, run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("place"))


def log_of(folder):
    return [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]


def train(place, folder, accumulate, precision="fp32", broken=(), workers=0):
    """Five updates under gates and dropout; ``broken`` maps (update, micro-batch) to a fault."""
    faults = dict(broken)
    exchange.BUCKET = 2000  # gradients go in several parts
    with join("cpu") as processes:
        task = distillation(place, Budget(0.5, warmup=2))
        every = {"accumulate": accumulate, "precision": precision, "log_every": 1, "num_workers": workers}
        config = TrainConfig(updates=5, warmup=2, **every)
        trainer = Trainer(task, config, stream_of(place), folder, 3, processes=processes)
        real, forward = task.step, trainer._forward

        def numbered(batch, micro):
            def step(batch, update, generator):
                loss, scalars = real(batch, update, generator)
                fault = faults.get((update, micro))
                if fault == "loss":
                    loss = loss * float("nan")
                elif fault == "gradient":
                    loss.register_hook(lambda gradient: gradient * float("inf"))
                return loss, scalars

            task.step = step
            return forward(batch, micro)

        trainer._forward = numbered
        trainer.run()
        state = {"module": task.module.state_dict(), "scaler": trainer.scaler.state_dict()}
        torch.save(state | {"skipped": trainer.skips.total}, folder / f"end-{processes.rank}.pt")


def assert_equal_runs(one, many, world, tolerance=1e-5):
    whole = torch.load(one / "end-0.pt")
    ends = [torch.load(many / f"end-{rank}.pt") for rank in range(world)]
    assert len(whole["module"]) == 85
    for end in ends:
        assert end["skipped"] == whole["skipped"]
        assert end["scaler"] == whole["scaler"]
        for name, tensor in end["module"].items():
            torch.testing.assert_close(tensor, whole["module"][name], atol=tolerance, rtol=tolerance)
            assert torch.equal(tensor, ends[0]["module"][name])
    rows, others = log_of(one), log_of(many)
    assert len(rows) == len(others) == 5
    for row, other in zip(rows, others, strict=True):
        for row_or in (row, other):
            row_or.pop("audio_seconds_per_second", None)
        assert row == pytest.approx(other, rel=tolerance, abs=tolerance)


@pytest.mark.slow
@pytest.mark.torchrun
@pytest.mark.parametrize(
    ("world", "accumulate", "precision"), [(2, 1, "fp32"), (2, 2, "bf16"), (3, 1, "fp32")]
)
def test_processes_equal_accumulation(place, tmp_path, world, accumulate, precision):
    """Losses, multipliers, gates and weights after five updates, gates and dropout on."""
    finish(run(tmp_path / "one", train, place, tmp_path / "one", world * accumulate, precision))
    workers = 2 // world  # of two processes each has one that reads
    arguments = (place, tmp_path / "many", accumulate, precision, (), workers)
    finish(run(tmp_path / "many", train, *arguments, world=world))
    assert_equal_runs(tmp_path / "one", tmp_path / "many", world)
    assert log_of(tmp_path / "many")[-1]["skipped"] == 0
    assert len(list((tmp_path / "many").glob("events.*"))) == 1


@pytest.mark.slow
@pytest.mark.torchrun
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_bad_micro_batch_skips_the_update_in_all(place, tmp_path, precision):
    """A loss that is not a number in process 1, then in 0, then an infinite gradient in 1."""
    broken = {(1, 1): "loss", (2, 2): "loss", (3, 3): "gradient"}
    finish(run(tmp_path / "one", train, place, tmp_path / "one", 4, precision, broken))
    finish(run(tmp_path / "many", train, place, tmp_path / "many", 2, precision, broken, world=2))
    # 16-bit gradients that are scaled by 65,536 and overflow skip the same updates in both, too
    assert_equal_runs(tmp_path / "one", tmp_path / "many", 2)
    assert [row["skipped"] for row in log_of(tmp_path / "one")][:4] == [0, 1, 2, 3]


def pipeline(place, out, **changes):
    config = read_config(place)
    stage1, stage2 = (
        replace(stage, **changes) if stage is not None else None for stage in (config.stage1, config.stage2)
    )
    compress(replace(config, stage1=stage1, stage2=stage2), out)


def only_reading(place, out):
    """The pipeline; process 1 may not write anywhere below ``out``."""
    written = []

    def hook(event, arguments):
        path = str(arguments[0]) if arguments else ""
        writes = event in ("os.rename", "os.remove", "os.mkdir") or (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if writes and path.startswith(str(out)):
            written.append((event, path))

    sys.addaudithook(hook)
    pipeline(place, out)
    assert bool(written) == (os.environ["RANK"] == "0"), written


@pytest.fixture(scope="module")
def two(place):
    """A whole run of two processes that nothing disturbs."""
    finish(run(place / "two", only_reading, place, place / "two" / "out", world=2))
    return place / "two" / "out"


@pytest.mark.slow
@pytest.mark.torchrun
def test_a_whole_run_equals_that_of_one_process(place, two):
    doubled = place / "doubled" / "out"
    finish(run(place / "doubled", twice, place, doubled))
    assert load_model(two / "model").config == load_model(doubled / "model").config
    a, b = load_model(two / "model").state_dict(), load_model(doubled / "model").state_dict()
    assert len(a) > 50
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], atol=1e-5, rtol=1e-5)
    valid = [json.loads((out / "results.json").read_text())["valid"] for out in (two, doubled)]
    for name in ("teacher_copy", "stage1", "pruned", "stage2"):
        assert valid[0][name] == pytest.approx(valid[1][name], abs=1e-5)


def twice(place, out):
    pipeline(place, out, accumulate=2)


def ends(place, out, when, how):
    """The pipeline, in which process ``when[0]`` ends in stage 1 after ``when[1]`` updates."""
    if how == signal.SIGSTOP:
        heartbeat.SILENCE = 10
    real = Trainer.train_step

    def step(self, batches):
        if (self.processes.rank, self.update) == when:
            if how == "raise":
                raise DataError("the disk is gone")
            os.kill(os.getpid(), how)
        return real(self, batches)

    Trainer.train_step = step
    pipeline(place, out, num_workers=2)


@pytest.mark.slow
@pytest.mark.torchrun
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other(place, tmp_path, rank):
    ranks = run(tmp_path, ends, place, tmp_path / "out", (rank, 3), signal.SIGKILL, world=2)
    ranks[rank].wait()
    died = time.monotonic()
    other = ranks[1 - rank].wait(60)
    assert time.monotonic() - died < 60
    assert ranks[rank].code == -signal.SIGKILL
    assert other.code == 2
    assert "lost another process of the run" in other.text


@pytest.mark.slow
@pytest.mark.torchrun
def test_a_silent_process_ends_the_other(place, tmp_path):
    """Stopped, not dead: its connections stay open and only its heart has stopped."""
    stopped, other = run(tmp_path, ends, place, tmp_path / "out", (0, 3), signal.SIGSTOP, world=2)
    try:
        assert other.wait(60).code == 2
        assert "process 0 of the run has given no sign of life for 10 s" in other.text
    finally:
        stopped.process.kill()


@pytest.mark.slow
@pytest.mark.torchrun
def test_the_others_learn_why_a_process_stopped(place, tmp_path):
    main, failing = run(tmp_path, ends, place, tmp_path / "out", (1, 3), "raise", world=2)
    assert failing.wait().code == main.wait(60).code == 2
    assert "DataError: the disk is gone" in failing.text
    assert "RunError: process 1 stopped: the disk is gone" in main.text


def long_validation(place, folder):
    """Process 0 validates longer than it may be silent, without a pause for others."""
    heartbeat.SILENCE = 10
    with join("cpu") as processes:
        task = distillation(place)

        def validate():
            until = time.monotonic() + 15
            while time.monotonic() < until:
                sum(range(1000))
            return {"loss": 0.5}

        task.validate = validate
        config = TrainConfig(updates=1, warmup=0, log_every=1, num_workers=0, accumulate=1)
        trainer = Trainer(task, config, stream_of(place), folder, processes=processes)
        trainer.run()
        assert trainer.best == 0.5


@pytest.mark.slow
@pytest.mark.torchrun
def test_long_work_of_one_process_is_no_death(place, tmp_path):
    began = time.monotonic()
    finish(run(tmp_path, long_validation, place, tmp_path / "out", world=2))
    assert time.monotonic() - began > 15


def continued(place, folder, stop):
    with join("cpu") as processes:
        config = TrainConfig(updates=8, warmup=2, save_every=4, log_every=1, num_workers=0, accumulate=1)
        task = distillation(place, Budget(0.5, warmup=2))
        trainer = Trainer(task, config, stream_of(place), folder, processes=processes)
        after = trainer.after_step

        def halt(*arguments):
            after(*arguments)
            if trainer.update == stop:
                raise RunError("stopped here")

        trainer.after_step = halt
        trainer.run()


@pytest.mark.slow
@pytest.mark.torchrun
def test_another_number_of_processes_goes_on_and_says_so(place, tmp_path):
    (first,) = run(tmp_path, continued, place, tmp_path / "out", 4)
    assert first.wait().code == 2
    ranks = run(tmp_path, continued, place, tmp_path / "out", None, world=2)
    finish(ranks)
    warnings = [line for line in ranks[0].text.splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert (
        "goes on after update 4 with processes 2 (was 1), micro-batches an update 2 (was 1);" in warnings[0]
    )
    assert "WARNING" not in ranks[1].text
    assert [row["update"] for row in log_of(tmp_path / "out")] == list(range(1, 9))


LAUNCHED = """
import os, signal, sys, time
from s3prl_dphubert.cli import main
from s3prl_dphubert.training.trainer import Trainer

name, update, attempt = sys.argv[1], int(sys.argv[2]), sys.argv[3]
real = Trainer.train_step

def step(self, batches):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == attempt
    if (self.name, self.update, self.processes.rank) == (name, update, 1) and first:
        print("\\ndies at", time.monotonic(), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, batches)

Trainer.train_step = step
sys.exit(main(sys.argv[4:]))
"""


@pytest.mark.slow
@pytest.mark.torchrun
def test_torchrun_ends_all_and_goes_on(place, two, tmp_path):
    """SIGKILL to process 1 in stage 1 ends torchrun; in stage 2, with a restart, the run gets through."""
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED)
    values = settings(place)
    for stage in ("stage1", "stage2"):
        values[stage]["num_workers"] = 2
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    arguments = ["0", "compress", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def launch(restarts, name, update):
        options = [f"--max-restarts={restarts}", "--master-port=0", "--rdzv-backend=c10d"]
        options.append("--rdzv-endpoint=127.0.0.1:0")
        whole = [*command, *options, str(script), name, str(update), *arguments]
        return subprocess.run(whole, capture_output=True, text=True, env=environment, timeout=300)

    process = launch(0, "stage1", 5)
    assert process.returncode != 0
    died = next(line for line in process.stderr.splitlines() if line.startswith("dies at"))
    assert time.monotonic() - float(died.split()[-1]) < 60
    assert sorted(path.name for path in (tmp_path / "out" / "stage1").glob("*.pt"))[-1] == "state-00000004.pt"
    process = launch(1, "stage2", 7)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("dies at") == 1
    assert process.stdout.count(f"{tmp_path / 'out' / 'model'}\n") == 1
    a, b = (load_model(out / "model").state_dict() for out in (two, tmp_path / "out"))
    assert len(a) > 50
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("environment", "device", "message"),
    [
        ({"WORLD_SIZE": "2"}, "cpu", "but not RANK, MASTER_ADDR, MASTER_PORT; torchrun sets them"),
        ({"RANK": "first"}, "cpu", "have to be integers"),
        ({}, "cuda:1", "device is 'cuda:1', allowed for 2 processes: cpu, cuda"),
    ],
)
def test_an_incomplete_environment_is_named(monkeypatch, environment, device, message):
    whole = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in (environment if "WORLD_SIZE" in environment else whole | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RunError, match=message), join(device):
        pass


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="device is 'cuda', and torch sees no GPU here"), join("cuda"):
        pass


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with join("auto") as processes:
        assert processes.device == torch.device(device)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_store_of_one_machine_listens_on_loopback_only(host):
    store = exchange._host_store(host, torch.distributed.HashStore())
    lines = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")).splitlines()
    rows = [line.split() for line in lines]
    listening = {row[1].partition(":")[0] for row in rows if row[1].endswith(f":{store.port:04X}")}
    assert listening <= {"0100007F", "00000000000000000000000001000000"}
    assert listening
    assert exchange.connect(host, store.port, exchange.CONNECT_TIMEOUT).num_keys() > 0


def test_one_process_talks_to_nobody():
    with join("cpu") as processes:
        assert (processes.rank, processes.world, processes.main) == (0, 1, True)
        assert processes.broadcast([1]) == [1]
        assert processes.mean({"a": 0.1}) == {"a": 0.1}
    assert not torch.distributed.is_initialized()
    assert Processes().device == torch.device("cpu")


def holding(place, out):
    """A run that halts in stage 1, its readers alive."""
    Trainer.train_step = lambda self, batches: time.sleep(60)
    pipeline(place, out, num_workers=1)


@pytest.mark.slow
def test_a_directory_is_one_runs_until_that_dies(place, tmp_path):
    out = tmp_path / "out"
    (holder,) = run(tmp_path, holding, place, out)
    while not list((out / "stage1").glob("events.*")) if out.exists() else True:
        time.sleep(0.1)
        assert holder.process.is_alive(), holder.text
    (second,) = run(tmp_path, pipeline, place, out)
    assert second.wait().code == 2
    assert "another process is running it" in second.text
    holder.process.kill()
    holder.wait()
    finish(run(tmp_path, pipeline, place, out))  # at once, though the readers of the dead one still live
