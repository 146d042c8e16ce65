"""Benchmark of inference: subjects take turns, an interrupted benchmark continues, the report is complete."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from s3prl_dphubert.bench import worker
from s3prl_dphubert.bench.inference import Benchmark, measure
from s3prl_dphubert.bench.machine import machine, versions
from s3prl_dphubert.bench.model_shapes import SHAPES
from s3prl_dphubert.bench.other_libraries import S3prlSubject, TransformersSubject
from s3prl_dphubert.bench.rows import rows
from s3prl_dphubert.bench.speed_report import write
from s3prl_dphubert.bench.subjects import FoldedSubject, MatrixProducts, Subject, UnfoldedSubject
from s3prl_dphubert.bench.turn_log import TurnLog
from s3prl_dphubert.bench.worker import Worker
from s3prl_dphubert.bench.workload import BATCHES, FULL, Workload
from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.cli import bench as bench_command
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import CheckpointError, ConfigError, RunError
from s3prl_dphubert.export.export_config import ExportConfig
from s3prl_dphubert.export.exporter import export_model
from s3prl_dphubert.model import ModelConfig, SpeechModel
from s3prl_dphubert.model.cost import macs, parameters

TINY = ModelConfig(
    conv_channels=(9, 8, 9, 7, 9, 8, 7),
    embed_dim=32,
    total_heads=4,
    head_dim=8,
    heads=((0, 2), (1,)),
    ffn=(5, 7),
    pos_conv_kernel=16,
    pos_conv_groups=4,
)
ALONE, MIXED = Workload("1 × 0.3 s", (0.3,)), Workload("mixed", (0.5, 0.2))


@dataclass(frozen=True)
class Sleeper(Subject):
    """Takes a known time that grows with the audio, and a lot of memory once."""

    @property
    def name(self):
        return "sleeper"

    def load(self, models):
        if self.precision != "fp32":
            raise OSError("no such precision")
        time.sleep(0.05)

        def call(waveforms, lengths):
            torch.ones(50 * 2**20 // 4).sum()
            time.sleep(waveforms.shape[1] / 16_000 / 10)
            return torch.full((1, 2, 3), float(torch.get_num_threads()))

        return call


def bench(folder, **values):
    values = {"threads": 1, "turns": 2, "shapes": {"pruned": TINY}, "workloads": (ALONE, MIXED)} | values
    return Benchmark(out=folder, **values)


def test_real_shapes():
    assert [round(parameters(config) / 1e6, 1) for config in SHAPES.values()] == [94.4, 23.7, 23.7, 23.5]
    pruned = SHAPES["pruned"]
    assert sum(len(heads) for heads in pruned.heads) == 40
    assert parameters(SHAPES["macs"]) == pytest.approx(parameters(pruned), rel=2e-3)
    assert macs(SHAPES["macs"], 160_000) / macs(pruned, 160_000) == pytest.approx(0.62, abs=0.005)
    assert [sum(workload.seconds) for workload in FULL[:3]] == [4, 15, 80]
    waveforms, lengths = FULL[3].batch()
    assert waveforms.shape == (8, max(FULL[3].samples))
    assert lengths.tolist() == FULL[3].samples
    assert all(not row[end:].any() and row[end - 1] for row, end in zip(waveforms, lengths, strict=True))
    assert FULL[0].batch()[1] is None


def test_worker_measures_what_its_subject_does(tmp_path):
    process = Worker(Sleeper("", None), tmp_path, 1)
    try:
        start = process.start(ALONE)
        assert start.load >= 0.05
        assert start.first >= 0.03
        assert process.time(MIXED) >= 0.05
        assert process.peak(ALONE) > 50 * 2**20
        assert process.hidden(ALONE).tolist() == np.full((1, 2, 3), 1.0).tolist()
    finally:
        process.stop()
    with pytest.raises(RunError, match="sleeper: its process ended"):
        process.time(ALONE)
    failing = Worker(Sleeper("", None, "bf16"), tmp_path, 1)
    with pytest.raises(RunError, match="sleeper: OSError: no such precision"):
        failing.start(ALONE)
    failing.stop()


def test_peak_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    assert worker._peak(lambda waveforms, lengths: None, ALONE) > 2**20


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    benchmark = bench(tmp_path_factory.mktemp("bench"))
    return benchmark, measure(benchmark)


@pytest.mark.slow
def test_all_take_turns(measured):
    benchmark, log = measured
    subjects = benchmark.subjects()
    names = [subject.name for subject in subjects]
    assert names == [
        "matrix products, fp32",
        "matrix products, bf16",
        "pruned, fp32",
        "pruned, bf16",
        "pruned, not folded, fp32",
    ]
    for workload in (ALONE, MIXED):
        turns = log.select("turn", workload=workload.name)
        assert len(turns) == 2
        assert all(list(turn["seconds"]) == names for turn in turns)
        assert all(seconds > 0 for turn in turns for seconds in turn["seconds"].values())
        (peak,) = log.select("peak", workload=workload.name)
        assert list(peak["bytes"]) == names
    errors = {entry["subject"]: entry["error"] for entry in log.select("error")}
    assert errors["pruned, not folded, fp32"] == 0
    assert errors["pruned, fp32"] < 1e-4 < errors["pruned, bf16"] < 0.05
    assert {type(subject) for subject in subjects} == {MatrixProducts, FoldedSubject, UnfoldedSubject}


@pytest.mark.slow
def test_goes_on_where_it_was(measured):
    """A killed benchmark keeps its turns, the half-written one excepted; a finished one starts nothing."""
    benchmark, log = measured
    path = benchmark.out / "turns.jsonl"
    text = path.read_text(encoding="utf8")
    assert measure(benchmark).entries == log.entries
    assert path.read_text(encoding="utf8") == text
    lines = text.splitlines(keepends=True)
    rest = [line for line in lines if f'"workload": "{MIXED.name}"' not in line]
    path.write_text("".join(rest) + lines[-2][:20], encoding="utf8")
    again = measure(benchmark)
    assert again.select("turn", workload=ALONE.name) == log.select("turn", workload=ALONE.name)
    assert len(again.select("turn", workload=MIXED.name)) == 2
    assert again.select("turn", workload=MIXED.name) != log.select("turn", workload=MIXED.name)
    with pytest.raises(RunError, match=r"made with other threads; choose another --out"):
        measure(bench(benchmark.out, threads=2))
    path.write_text("{}\nnothing\n", encoding="utf8")
    with pytest.raises(CheckpointError, match="damaged"):
        measure(benchmark)
    path.write_text(text, encoding="utf8")


@pytest.mark.slow
def test_report(measured):
    benchmark, log = measured
    paths = write(benchmark, log, "s3prl-dphubert bench --out OUT")
    assert [path.name for path in paths] == ["speed.json", "speed.md", "speed.png"]
    content = json.loads(paths[0].read_text(encoding="utf8"))
    assert content["threads"] == 1
    assert content["machine"] == machine()
    assert content["versions"] == versions()
    assert len(content["rows"]) == 6
    for row in content["rows"]:
        assert row["runs"] == 2
        assert 0 < row["best"] <= row["low"] <= row["median"] <= row["high"]
        assert row["products"] > 0
    markdown = paths[1].read_text(encoding="utf8")
    assert markdown.count("| pruned, bf16 |") == 3
    assert "s3prl-dphubert bench --out OUT" in markdown
    assert f"## {MIXED.name}" in markdown
    assert markdown.count("2 runs each; load average ") == 2
    assert str(benchmark.out) not in markdown
    assert paths[2].stat().st_size > 10_000


def test_others_run_the_same_shape(tmp_path):
    """transformers and s3prl, each from its own files; DistilHuBERT with its prediction heads."""
    dense = replace(TINY, conv_channels=(8,) * 7, heads=((0, 1, 2, 3),) * 2, ffn=(16, 16))
    waveforms, lengths = MIXED.batch()
    frames = dense.frames(waveforms.shape[1])
    outputs = {}
    for subject in (
        TransformersSubject("base", dense),
        S3prlSubject("base", dense),
        S3prlSubject("distilhubert", dense),
    ):
        for _ in range(2):  # the second time the files are there
            subject.prepare(tmp_path)
        subject.libraries()
        with torch.no_grad():
            outputs[subject.name] = subject.load(tmp_path)(waveforms, lengths)
    ours, upstream, distilled = outputs.values()
    assert len(ours.hidden_states) == len(upstream["hidden_states"]) == dense.num_layers + 1
    assert len(distilled["hidden_states"]) == 1 + dense.num_layers + 3
    for state in (*ours.hidden_states, *upstream["hidden_states"], *distilled["hidden_states"]):
        assert state.shape == (2, frames, dense.embed_dim)
        assert state.isfinite().all()
    names = ["transformers, HuBERT Base, fp32", "s3prl, HuBERT Base, fp32", "s3prl, DistilHuBERT, fp32"]
    assert list(outputs) == names
    chosen = bench(tmp_path, transformers=True, s3prl=True, shapes={"base": dense, "distilhubert": dense})
    assert [s.name for s in chosen.subjects() if s.name.startswith(("transformers", "s3prl"))] == names


def test_exported_files_are_known_by_their_weights(tmp_path):
    benchmark = bench(tmp_path)
    (checkpoint,) = benchmark.prepare()
    torch.manual_seed(1)
    other = save_model(SpeechModel(TINY), tmp_path / "other")
    paths = tuple(tmp_path / f"{source.name}.onnx" for source in (checkpoint, other))
    for source, path in zip((checkpoint, other), paths, strict=True):
        export_model(source, path, ExportConfig(format="onnx"))
    known, unknown = bench(tmp_path, exported=paths).subjects()[-2:]
    assert (known.shape, known.own_weights, known.config) == ("pruned", True, TINY)
    assert (unknown.shape, unknown.own_weights) == ("", False)
    assert known.name == f"exported, pruned, fp32 ({tmp_path.name}/pruned.onnx)"
    assert "another model" in unknown.name
    wanted, _ = load_model(checkpoint).extract_features(ALONE.batch()[0])
    torch.testing.assert_close(known.load(tmp_path)(*ALONE.batch()), wanted[-1], atol=1e-4, rtol=1e-4)


def test_own_checkpoints(tmp_path):
    path = save_model(SpeechModel(TINY), tmp_path / "mine")
    subjects = bench(tmp_path / "out", checkpoints=(path,)).subjects()[-2:]
    assert [subject.name for subject in subjects] == ["mine, fp32", "mine, bf16"]
    for subject in subjects:
        assert not subject.own_weights
        subject.prepare(tmp_path / "out")
        wanted, _ = load_model(path).extract_features(ALONE.batch()[0])
        state = subject.load(tmp_path / "out")(*ALONE.batch())
        assert 0 < (state - wanted[-1]).norm() < 0.02 * wanted[-1].norm()
    assert not (tmp_path / "out").exists()


def test_numbers_of_rows(tmp_path):
    """Ratios are of the same turn, whatever the noise between turns; padding is no audio."""
    base = UnfoldedSubject("base", TINY)
    subjects = [MatrixProducts("", None), FoldedSubject("base", TINY), base]
    log = TurnLog(tmp_path / "turns.jsonl", {})
    for noise in (1, 10, 3):
        seconds = {
            "matrix products, fp32": 0.5 * noise,
            "HuBERT Base, fp32": 0.2 * noise,
            base.name: 0.4 * noise,
        }
        log.add({"kind": "turn", "workload": MIXED.name, "seconds": seconds})
    fast, plain = rows(log, subjects, (MIXED,))
    assert plain.ratios == {base.name: 1.0}
    assert fast.ratios == {base.name: pytest.approx(0.5)}
    assert fast.audio == pytest.approx(0.7)
    assert fast.median == pytest.approx(0.6 / 0.7)
    assert fast.best == pytest.approx(0.2 / 0.7)
    assert fast.products == pytest.approx(macs(TINY, [8000, 3200]) * 1.5 / 1536**3 / 0.7)
    assert fast.peak is None


def test_refused(tmp_path, capsys):
    missing = tmp_path / "pruned.onnx"
    with pytest.raises(ConfigError) as caught:
        bench(tmp_path, threads=0, turns=0, reference=tmp_path, exported=(missing,), checkpoints=(missing,))
    faults = (
        "threads is 0",
        "turns is 0",
        "reference is",
        "exported is",
        "checkpoints is",
        "names pruned, p",
    )
    for said in faults:
        assert said in str(caught.value)
    assert tuple(SHAPES) == bench_command.SHAPES
    assert tuple(BATCHES) == bench_command.BATCHES
    with pytest.raises(ConfigError) as caught:
        bench(tmp_path, transformers=True, s3prl=True, shapes={"pruned": TINY})
    assert "transformers given without base in shapes, which it has models of" in str(caught.value)
    assert "s3prl given without base or distilhubert in shapes" in str(caught.value)
    assert main(["bench", "--out", str(tmp_path), "--threads", "0"]) == 2
    assert "threads is 0, allowed: 1 or more" in capsys.readouterr().err


def test_chosen_batches(tmp_path, monkeypatch):
    """Only these are measured, and the page's command says so."""
    written = {}
    monkeypatch.setattr("s3prl_dphubert.bench.inference.measure", lambda chosen: chosen)
    monkeypatch.setattr(
        "s3prl_dphubert.bench.speed_report.write", lambda *given: written.update(given=given) or []
    )
    words = ["bench", "--out", str(tmp_path), "--turns", "2", "--batches", "8x10", "1x4", "8x10"]
    assert main(words) in (0, None)
    benchmark, _, command = written["given"]
    assert [workload.name for workload in benchmark.workloads] == ["8 × 10 s", "1 × 4 s"]
    assert command == "s3prl-dphubert bench --out OUT --turns 2 --batches 8x10 1x4 8x10"
    (tmp_path / "a.xml").touch()
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--exported", "a.xml", str(tmp_path / "a.xml")]) in (0, None)
    assert written["given"][2].endswith(f"--exported a.xml {tmp_path.name}/a.xml")


def test_options_that_do_not_go_together(tmp_path, capsys):
    out, table = ["--out", str(tmp_path / "out")], ["--table", str(tmp_path / "table.json")]
    for words, said in {
        (*table, *out, "--quick"): "out, quick given with table, allowed: threads",
        (*table, "--training"): "training given with table, allowed: threads",
        (
            *("--training", *out, "--turns", "2", "--shapes", "base", "--s3prl"),
            *("--prepare", "--exported", "a.xml", "--checkpoint", "b", "--transformers"),
        ): "transformers, s3prl, checkpoint, exported, shapes, turns, prepare given with training, "
        "allowed: out, reference, threads, repeats",
        (
            "--training",
            "--quick",
        ): "quick given with training, allowed: out, reference, threads, repeats; out "
        "is missing, allowed: a folder",
        (*out, "--repeats", "2"): "repeats is given without training, allowed: turns",
        (*out, "--model", "wavlm_base"): "model is given without table, allowed: checkpoint",
        (): "out is missing, allowed: a folder, or --table FILE alone",
    }.items():
        assert main(["bench", *words]) == 2
        assert f"s3prl-dphubert: bench: {said}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
