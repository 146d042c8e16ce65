from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.golden import GOLDEN, ROOT


def pytest_collection_modifyitems(items):
    """Skip tests that need a GPU where torch sees none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU, and torch sees none here"))


@pytest.fixture(scope="session")
def golden():
    """name -> (expected tensors, facts) of a fixture computed by the published implementation."""

    def read(name: str):
        expected = load_file(GOLDEN / f"{name}.expected.safetensors")
        return expected, json.loads((GOLDEN / f"{name}.json").read_text())

    return read


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny models gain nothing from a second thread, and lose much where others use the machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def upstreams_in_float32():
    """Upstreams of this process and of those it starts, unless a test names another precision.

    By default they take what is fast on a machine; tests compare with float32 on every machine.
    """
    os.environ["S3PRL_DPHUBERT_PRECISION"] = "fp32"


@pytest.fixture
def no_downstream(monkeypatch):
    """Other tests imported s3prl's downstreams; here none is at work in this process."""
    for name in [name for name in sys.modules if name.startswith("s3prl.downstream.")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Copy of the repository as a clone has it, without its tests."""
    folder = tmp_path_factory.mktemp("source") / "source"
    names = (".git", ".venv*", "build", "*.egg-info", "demo-output", "__pycache__", "tests")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*names))
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, source):
    """The wheel, built as a user builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(source)], check=True)
    (built,) = folder.glob("*.whl")
    return built
