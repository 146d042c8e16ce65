"""A wheel carries configurations, recipes, assets and licences, and finds them anywhere."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

LIMIT = 12 * 1024**2


def test_size_and_licences(wheel):
    assert wheel.stat().st_size <= LIMIT
    names = zipfile.ZipFile(wheel).namelist()
    for ending in (
        "licenses/LICENSE",
        "licenses/NOTICE",
        "assets/speech/LICENSES.md",
        "assets/speech/CREDITS.txt",
        "assets/hubert_nano/LICENSE",
        "assets/hubert_nano/README.md",
        "s3prl_dphubert/superb/scoring/published.yaml",
        "s3prl_dphubert/superb/prepare/iemocap.yaml",
        "s3prl_dphubert/mini/packages.tsv",
        "s3prl_dphubert/mini/alignments.tsv.gz",
        "s3prl_dphubert/mini/LICENSE.cmudict",
        "downstream_recipes/mini_superb/pr/phonemes.txt",
        "downstream_recipes/pr/phonemes.txt",
        "s3prl_dphubert/pretrain/dphubert/config_runner.yaml",
    ):
        assert any(name.endswith(ending) for name in names), ending
    assert sum(name.endswith(".ogg") for name in names) == 355


def test_installed_files_are_found(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)
    script = (
        "from s3prl_dphubert import load_model\n"
        "from s3prl_dphubert.utils import resources\n"
        "names = 'upstream_configs/demo.yaml', 'downstream_recipes/README.md', 'assets/speech/manifest.tsv'\n"
        "for name in names:\n"
        "    print(resources.find(name))\n"
        "print(sum(p.numel() for p in load_model(resources.find('assets/hubert_nano')).parameters()))\n"
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
    assert int(count) == 3_253_632
