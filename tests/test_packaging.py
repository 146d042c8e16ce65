"""A wheel carries configurations, recipes, assets and licences, and finds them anywhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers.golden import ROOT

pytestmark = pytest.mark.slow

LIMIT = 25 * 10**6


@pytest.fixture(scope="module")
def interpreter(wheel, tmp_path_factory):
    """Python of a virtual environment that has the wheel, but neither the checkout nor its dependencies."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)
    return home / "bin" / "python"


def test_size_and_licences(wheel):
    assert wheel.stat().st_size <= LIMIT
    names = zipfile.ZipFile(wheel).namelist()
    for ending in (
        "licenses/LICENSE",
        "licenses/NOTICE",
        "assets/speech/LICENSES.md",
        "assets/speech/CREDITS.txt",
        "assets/hubert_mini/LICENSE",
        "assets/hubert_mini/README.md",
        "s3prl_dphubert/superb/scoring/published.yaml",
        "s3prl_dphubert/superb/prepare/iemocap.yaml",
        "s3prl_dphubert/free_superb/packages.tsv",
        "s3prl_dphubert/free_superb/alignments.tsv.gz",
        "s3prl_dphubert/free_superb/phones.tsv.gz",
        "s3prl_dphubert/free_superb/LICENSE.cmudict",
        "downstream_recipes/free_superb/pr/phonemes.txt",
        "downstream_recipes/pr/phonemes.txt",
        "s3prl_dphubert/pretrain/dphubert/config_runner.yaml",
        "s3prl_dphubert/run_report/page.html",
        "s3prl_dphubert/run_report/page.css",
        "s3prl_dphubert/py.typed",
    ):
        assert any(name.endswith(ending) for name in names), ending
    assert sum(name.endswith(".ogg") for name in names) == 355


def test_the_source_distribution_has_all_of_the_checkout(tmp_path):
    ignored = shutil.ignore_patterns(
        ".git", ".*cache", ".venv*", "build", "*.egg-info", "demo-output", "__pycache__"
    )
    checkout = shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignored)
    folders = ("s3prl_dphubert", "upstream_configs", "downstream_recipes", "tests", "docs", "examples", ".ci")
    expected = {
        str(p.relative_to(checkout)) for name in folders for p in (checkout / name).rglob("*") if p.is_file()
    }
    expected |= {
        "Makefile",
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE",
        "NOTICE",
        "hubconf.py",
    }
    build = [
        sys.executable,
        "-m",
        "build",
        "--sdist",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(checkout),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert len(expected) > 800
    assert expected - names == set()


def test_metadata_names_the_licence_of_everything_in_it(wheel):
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        metadata = files.read(next(name for name in names if name.endswith("dist-info/METADATA"))).decode()
        listed = files.read(next(name for name in names if name.endswith("speech/manifest.tsv"))).decode()
    (line,) = (line for line in metadata.splitlines() if line.startswith("License-Expression: "))
    stated = set(line.removeprefix("License-Expression: ").split(" AND "))
    identifiers = {
        "BSD-2": "BSD-2-Clause",
        "BSD-like (festvox)": "MIT-Festival",
        "CC-BY-SA-3.0-IT": "LicenseRef-CC-BY-SA-3.0-IT",
    }
    clips = {row.rpartition("\t")[2] for row in listed.splitlines()[1:]}
    assert len(clips) == 5
    assert stated == {"Apache-2.0", "CC-BY-SA-4.0", *(identifiers.get(clip, clip) for clip in clips)}
    for name in (
        "speech/LICENSES.md",
        "speech/CREDITS.txt",
        "hubert_mini/LICENSE",
        "free_superb/LICENSE.cmudict",
    ):
        assert any(
            f"dist-info/licenses/s3prl_dphubert/{'' if 'free_superb' in name else 'assets/'}{name}" in n
            for n in names
        )


def test_installed_files_are_found(interpreter, tmp_path):
    (site,) = interpreter.parents[1].glob("lib/python*/site-packages")
    script = (
        "from s3prl_dphubert import load_model\n"
        "from s3prl_dphubert.utils import resources\n"
        "names = 'upstream_configs/demo.yaml', 'downstream_recipes/README.md', 'assets/speech/manifest.tsv'\n"
        "for name in names:\n"
        "    print(resources.find(name))\n"
        "print(sum(p.numel() for p in load_model(resources.find('assets/hubert_mini')).parameters()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    *paths, count = run.stdout.split()
    assert len(paths) == 3
    assert all(Path(path).is_relative_to(site) for path in paths)
    assert int(count) == 5_922_816


USER_SCRIPT = """
    from s3prl_dphubert import Budget, CompressConfig, DataConfig, GateConfig, GatedModel, ModelConfig
    from s3prl_dphubert import SpeechModel, TrainConfig, __version__, compress, fold, load_model, prune
    from s3prl_dphubert import export_model, load_exported, load_teacher, register, save_model, unregister

    teacher: SpeechModel = load_teacher("hubert_mini")
    shape: ModelConfig = teacher.config
    gated = GatedModel(teacher, GateConfig(kinds=("heads", "ffn")))
    pruned: SpeechModel = prune(gated, Budget({"macs": 0.5}))
    config = CompressConfig("hubert_mini", DataConfig("speech.tsv"), stage2=TrainConfig(updates=9, warmup=1))
    small = compress(config, "run")
    small = compress("dphubert_base", "run", seed=1)
    small = compress(teacher="hubert_mini", data="speech.tsv", budget=0.75, out="run")
    folded = fold(small)
    print(__version__, save_model(small, "model"), len(shape.heads))
"""


@pytest.mark.slow
def test_type_checkers_know_the_public_names(interpreter, tmp_path):
    """mypy accepts a user's script against the installed package, and finds a mistake in it."""
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--python-executable",
        str(interpreter),
        "--cache-dir",
        str(tmp_path),
    ]
    mistakes = "compress(3, out='run')\nSpeechModel(7)\nload_model()\n"
    for added, lines in (("", 0), (mistakes, 3)):
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(USER_SCRIPT) + added)
        run = subprocess.run([*mypy, str(script)], cwd=tmp_path, capture_output=True, text=True)
        assert run.stdout.count("script.py:") - run.stdout.count("note:") == lines, run.stdout
