"""Each example runs as a user would run it, and prints what its docstring promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from s3prl_dphubert import load_model
from tests.helpers.golden import ROOT

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str) -> str:
    """Run an example in a process of its own, and return what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_examples_are_short_and_listed():
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(scripts) == 6
    whole_trainings = {"finetune_ctc.py": 250}  # data, model, two loops and an error rate
    page = (EXAMPLES / "README.md").read_text(encoding="utf8")
    for name in scripts:
        assert f"({name})" in page
        assert len((EXAMPLES / name).read_text(encoding="utf8").splitlines()) <= whole_trainings.get(name, 60)


def test_load_and_extract():
    printed = run("load_and_extract.py")
    assert "layer 0: (3, 245, 192)" in printed
    assert printed.count("layer ") == 13


def test_prune_by_hand(tmp_path):
    printed = run("prune_by_hand.py", "--out", str(tmp_path / "model"))
    assert float(re.search(r"largest difference .*: (\S+)", printed)[1]) < 1e-4
    assert sum(p.numel() for p in load_model(tmp_path / "model").parameters()) <= 5_922_816 // 2


@pytest.mark.slow
def test_export_and_run(tmp_path):
    pytest.importorskip("onnxruntime")
    printed = run("export_and_run.py", "--out", str(tmp_path / "mini.onnx"))
    assert float(re.search(r"relative error .*: (\S+)", printed)[1]) < 1e-4


@pytest.mark.s3prl
def test_use_in_s3prl():
    pytest.importorskip("s3prl")
    accuracy = re.search(r"accuracy on 16 other clips (\d+)%", run("use_in_s3prl.py"))
    assert int(accuracy[1]) >= 75  # chance: 50


@pytest.mark.slow
def test_compress_small_teacher(tmp_path):
    printed = run("compress_small_teacher.py", "--out", str(tmp_path / "small"), "--updates", "8")
    assert "parameters: 5,922,816 -> 1,4" in printed
    assert load_model(tmp_path / "small" / "run" / "model").config.num_layers == 12


def error_rates(*options: str) -> tuple[float, float]:
    """Character error rates of held-out speech before and after a short fine-tuning, in percent."""
    printed = run("finetune_ctc.py", *options)
    before, after = re.search(r"character error rate: ([\d.]+)% before, ([\d.]+)% after", printed).groups()
    return float(before), float(after)


def test_finetune_ctc():
    before, after = error_rates()
    assert before > 90  # blanks alone are 100
    assert after < 80


def test_finetune_ctc_with_trainer():
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    before, after = error_rates("--transformers")
    assert before > 90
    assert after < 80
