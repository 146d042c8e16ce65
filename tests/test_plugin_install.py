"""The plugin is there where this package is installed, from a wheel or a checkout, and nowhere else."""

from __future__ import annotations

import shutil

import pytest

from tests.helpers.virtual_environments import fresh

pytestmark = pytest.mark.slow

NAMES = ["dphubert", "dphubert_hub", "dphubert_local", "dphubert_url", "dpwavlm"]
PTH = "s3prl_dphubert.pth"
ON_THE_HUB = """
import json
from s3prl import hub
print(json.dumps(sorted(name for name in hub.options() if name.startswith("dp"))))
"""
EARLY = """
import sys, json
early = set(sys.modules)
print(json.dumps([[n for n in early if n.startswith("s3prl")], "typing" in early, "torch" in early]))
"""


@pytest.fixture(scope="module")
def from_wheel(tmp_path_factory, wheel):
    made = fresh(tmp_path_factory.mktemp("wheel_environment"))
    made.install(str(wheel))
    return made


def copy(environment, folder):
    """The same environment, to be spoiled; its interpreter is the same."""
    made = fresh(folder)
    for path in environment.site.iterdir():
        kind = shutil.copytree if path.is_dir() else shutil.copy
        kind(path, made.site / path.name)
    return made


def record(environment):
    (path,) = environment.site.glob("s3prl_dphubert-*.dist-info/RECORD")
    return [line.split(",")[0] for line in path.read_text().splitlines()]


def complaints(done):
    return [line for line in done.stderr.splitlines() if "s3prl-dphubert" in line]


@pytest.mark.s3prl
def test_a_wheel_brings_the_plugin_and_takes_it_away(tmp_path, from_wheel):
    made = copy(from_wheel, tmp_path / "environment")
    assert PTH in record(made)
    made.link()
    assert made.answer(ON_THE_HUB) == NAMES
    made.pip("uninstall", "--yes", "s3prl-dphubert")
    assert not (made.site / PTH).exists()
    assert not (made.site / "s3prl_dphubert").exists()
    assert made.answer(EARLY) == [[], False, False]


@pytest.mark.s3prl
def test_an_editable_install_brings_the_plugin(tmp_path, source):
    made = fresh(tmp_path / "environment")
    made.link()
    made.install("--editable", str(source))
    assert PTH in record(made)
    assert made.answer(ON_THE_HUB) == NAMES
    assert sorted(made.answer(EARLY)[0]) == ["s3prl_dphubert", "s3prl_dphubert.autoload"]
    moved = source.rename(source.with_name("moved"))
    try:  # an interpreter without the checkout that it was installed from starts in silence
        done = made.run("-c", "print('started')")
        assert (done.returncode, done.stdout, complaints(done)) == (0, "started\n", [])
    finally:
        moved.rename(source)


def test_the_start_of_an_interpreter(from_wheel):
    modules, typing, torch = from_wheel.answer(EARLY)
    assert sorted(modules) == ["s3prl_dphubert", "s3prl_dphubert.autoload"]
    assert not typing and not torch
    spent = 0
    for _ in range(60):  # the machine may be busy, and is not all the time
        lines = from_wheel.run("-X", "importtime", "-c", "").stderr.splitlines()
        rows = [line.split("|") for line in lines if "s3prl_dphubert" in line]
        assert len(rows) == 2
        spent = sum(int(row[0].split(":")[1]) for row in rows)
        if spent < 1000:
            break
    assert spent < 1000  # microseconds


def test_switched_off(from_wheel):
    assert from_wheel.answer(EARLY, S3PRL_DPHUBERT_PLUGIN="0") == [[], False, False]


def test_without_s3prl_nothing_happens(from_wheel):
    done = from_wheel.run("-c", "import s3prl")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 's3prl'"
    assert complaints(done) == []
    done = from_wheel.run("-c", "import s3prl_dphubert; s3prl_dphubert.register()")
    assert done.stderr.splitlines()[-1].endswith("environment: pip install s3prl==0.4.18")


def test_doctor_without_anything(from_wheel):
    done = from_wheel.run("-m", "s3prl_dphubert.cli", "doctor")
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert "torch absent" in said
    assert f"on, by {from_wheel.site / PTH}" in said
    assert said.endswith("s3prl not installed: pip install s3prl==0.4.18 verdict not usable: s3prl")
    done = from_wheel.run("-m", "s3prl_dphubert.cli", "doctor", S3PRL_DPHUBERT_PLUGIN="0")
    said = " ".join(done.stdout.split())
    assert "off, S3PRL_DPHUBERT_PLUGIN is 0; use `s3prl-dphubert run_downstream` or" in said


def test_doctor_warns_of_s3prl_and_its_fork_together(tmp_path, from_wheel):
    for name in ("s3prl", "espnet-s3prl"):
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    done = from_wheel.run("-m", "s3prl_dphubert.cli", "doctor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert "s3prl and espnet-s3prl write into the same folder: uninstall both, then install one" in said


def test_a_broken_package_does_not_stop_the_interpreter(tmp_path, from_wheel):
    made = copy(from_wheel, tmp_path / "environment")
    (made.site / "s3prl_dphubert" / "autoload.py").write_text("def start(:\n")
    done = made.run("-c", "print('started')")
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("s3prl-dphubert: plugin is off (SyntaxError: ")


@pytest.mark.s3prl
def test_a_failure_of_the_plugin_does_not_stop_s3prl(tmp_path, from_wheel):
    made = copy(from_wheel, tmp_path / "environment")
    made.link()
    with (made.site / "s3prl_dphubert" / "upstream" / "entries.py").open("a") as file:
        file.write('\n__all__.insert(0, "nothing")\n')
    done = made.run("-c", ON_THE_HUB)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert complaints(done) == [
        "s3prl-dphubert: its upstreams are not registered "
        "(AttributeError: module 's3prl_dphubert.upstream.entries' has no attribute 'nothing')"
    ]
