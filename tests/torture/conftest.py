"""A new process for tests that fork, since the threads of other tests' runtimes do not live in a fork."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers.golden import ROOT

RUNTIMES = ("openvino", "onnxruntime")
ALONE = "S3PRL_DPHUBERT_TORTURE_ALONE"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test in a new process if this one has loaded a runtime: a fork of it may hang."""
    if ALONE in os.environ or not any(name in sys.modules for name in RUNTIMES):
        return None
    options = ["-q", "-m", "", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-cov"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, pyfuncitem.nodeid],
        cwd=ROOT,
        env={**os.environ, ALONE: "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return True
