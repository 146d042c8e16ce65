"""Commands import heavy libraries only when they need them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from s3prl_dphubert.superb.scoring.score_file import ScoreRecord, write

pytestmark = pytest.mark.slow

FORWARDED = [["run_downstream"], ["run_pretrain"]]  # these hand --help on to s3prl
HEAVY = ("torch", "numpy", "matplotlib", "s3prl")


def imported(script: str) -> set[str]:
    """Run a script in a new process; return the heavy libraries that it imported."""
    whole = f"{script}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))


def test_help_of_every_command_imports_nothing_heavy():
    script = f"""
import argparse
from s3prl_dphubert.cli import build_parser, main

def commands(parser, words):
    yield words
    for group in parser._actions:
        if isinstance(group, argparse._SubParsersAction):
            for name, inner in group.choices.items():
                yield from commands(inner, [*words, name])

found = [words for words in commands(build_parser(), []) if words[-1:] not in {FORWARDED}]
assert ["superb", "status"] in found and len(found) > 15
for words in found:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0
"""
    assert imported(script) == set()


def test_status_of_a_run_imports_nothing_heavy(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"upstream": "fbank", "tasks": ["KS", "ER", "SID"]}))
    training = tmp_path / "ks" / "train"
    training.mkdir(parents=True)
    (training / "state.json").write_text("{}")
    done = ScoreRecord("SID", "fbank", {"acc": 81.42}, 0, 1e-4, "0.4.18", "2026-11-24T10:00:00", "x")
    write(done, tmp_path / "sid")
    script = f"from s3prl_dphubert.cli import main; assert main(['superb', 'status', {str(tmp_path)!r}]) == 0"
    assert imported(script) == set()


def test_plots_are_imported_when_something_is_drawn():
    modules = (
        "compression.pipeline",
        "superb.report.tables",
        "superb.run.runner",
        "free_superb.results",
        "bench.inference",
        "bench.training",
        "export.exporter",
        "demo.compression_demo",
    )
    script = "\n".join(f"import s3prl_dphubert.{module}" for module in modules)
    assert "matplotlib" not in imported(script)
