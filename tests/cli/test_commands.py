"""The command line: output, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import soundfile
import yaml

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.demo.compression_demo import demo
from s3prl_dphubert.model.profiler import real_time_factors
from s3prl_dphubert.version import __version__
from tests.helpers.golden import GOLDEN
from tests.helpers.models import tiny
from tests.helpers.speech import tone


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "audio"
    folder.mkdir()
    for index in range(4):
        soundfile.write(folder / f"{index}.flac", tone(1.0 + index), 16_000)
    return folder


def test_manifest(corpus, tmp_path, capsys):
    out = tmp_path / "x.tsv"
    assert main(["manifest", str(corpus), "--out", str(out), "--split", "valid=*3.flac"]) == 0
    text = capsys.readouterr().out
    assert "x.tsv  3 files, 0.1 min" in text
    assert "x.valid.tsv  1 files" in text
    assert main(["manifest", str(corpus), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["manifest", str(corpus), "--out", str(out), "--overwrite", "--check"]) == 0
    assert len(out.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["manifest", "/nowhere", "--out", "x.tsv"], "no such folder"),
        (["manifest", ".", "--out", "x.tsv", "--split", "valid"], "'valid' has no glob"),
        (["compress", "nothing.yaml", "--out", "x"], "nothing.yaml: no such file"),
        (
            ["compress", "nothing", "--out", "x"],
            "neither a file nor a built-in configuration, allowed: any_corpus, demo, ",
        ),
        (["compress", "dphubert_base", "--out", "x", "--set", "lr"], "--set is 'lr', allowed: FIELD=VALUE"),
        (["inspect", "nothing"], "no such file or directory"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("s3prl-dphubert: ")
    assert message in error


def test_unknown_commands_exit_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fly"])
    assert caught.value.code == 2
    assert "error: unknown command 'fly'; available: manifest, validate, " in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["superb", "fly"])
    assert caught.value.code == 2
    assert "error: unknown command 'fly'; available: run, status, " in capsys.readouterr().err


def test_former_command_says_what_it_is_called_now(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["mini-superb", "--out", "free-superb"])
    assert caught.value.code == 2
    assert "the command 'mini-superb' is called 'free-superb' now" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["s3prl_dphubert", "s3prl_dphubert.cli"])
def test_modules_run_as_the_command(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"s3prl-dphubert {__version__}\n")
    done = subprocess.run(
        [sys.executable, "-m", module, "inspect", "/nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("s3prl-dphubert: ")


def test_inspect(capsys):
    assert main(["inspect", str(GOLDEN / "wavlm_pruned.pth")]) == 0
    text = capsys.readouterr().out
    facts = json.loads((GOLDEN / "wavlm_pruned.json").read_text())
    assert f"{facts['num_parameters']:,}" in text
    assert "| 2 | 1 | 3 |" in text


def test_demo_with_a_tiny_teacher(tmp_path, monkeypatch, capsys):
    """The demo without s3prl; the shipped teacher itself is what `make demo` runs."""
    monkeypatch.setitem(sys.modules, "s3prl", None)  # as if it were not installed
    save_model(tiny("hubert"), tmp_path / "teacher")
    stage = {"updates": 2, "warmup": 1, "num_workers": 0}
    values = {
        "teacher": str(tmp_path / "teacher"),
        "data": {
            "train": "",
            "valid_batches": 1,
            "batch": {"seconds_per_batch": 2.0, "min_seconds": 0.4, "max_seconds": 1.0},
        },
        "budget": {"sparsity": 0.5, "warmup": 1, "tolerance": 1.0},
        "objective": {"groups": [[0], [3]]},
        "stage1": stage,
        "stage2": stage,
    }
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(values))
    assert main(["demo", "--out", str(tmp_path / "out"), "--config", str(tmp_path / "demo.yaml")]) == 0
    text = capsys.readouterr().out
    for part in (
        "| layer | heads",
        "parameters (M)",
        "after stage 1 (masked)",
        "real-time factor",
        "units.png",
        "SID left out: s3prl is not installed; pip install 's3prl-dphubert[s3prl]'",
    ):
        assert part in text
    assert not (tmp_path / "out" / "sid").exists()
    assert "Traceback" not in text
    assert load_model(tmp_path / "out" / "run" / "model").config.embed_dim == 32
    demo(tmp_path / "out", tmp_path / "demo.yaml")  # a finished demo is shown again
    assert "real-time factor" in capsys.readouterr().out


def test_real_time_factors():
    factors = real_time_factors({"a": tiny("hubert"), "b": tiny("wavlm")}, seconds=0.5, repeats=2)
    assert set(factors) == {"a", "b"}
    assert all(value > 0 for value in factors.values())


def test_validate_decodes_everything(tmp_path, capsys):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, tone(1.0), 16_000)
    out = tmp_path / "all.tsv"
    assert main(["manifest", str(tmp_path), "--out", str(out)]) == 0
    assert main(["validate", str(out), "--workers", "0"]) == 0
    (tmp_path / "b.wav").write_bytes((tmp_path / "b.wav").read_bytes()[:9000])
    assert main(["validate", str(out), "--workers", "0"]) == 2
    assert "1 of 2 files are bad" in capsys.readouterr().err
