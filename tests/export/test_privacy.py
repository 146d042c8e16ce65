"""Exported files stay on the machine: no files in the home folder, no connections."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.export.export_config import ExportConfig
from s3prl_dphubert.export.exporter import export_model
from tests.helpers.models import tiny

pytestmark = pytest.mark.slow

RUN = """
import socket, sys, time
def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        print("network:", event, arguments[-1])
sys.addaudithook(refuse)
import torch
from s3prl_dphubert.export import load_exported
model = load_exported(sys.argv[1], threads=1)
model.extract_features(torch.randn(1, 4000))
assert "openvino_telemetry" not in sys.modules
time.sleep(3)
print("done")
"""


@pytest.mark.parametrize(("form", "name"), [("onnx", "m.onnx"), ("openvino", "m.xml")])
def test_loading_an_exported_file_writes_nothing_home_and_looks_nothing_up(tmp_path, form, name):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime" if form == "onnx" else "openvino")
    source = save_model(tiny("hubert"), tmp_path / "model")
    export_model(source, tmp_path / name, ExportConfig(format=form, precision="fp32", threads=1))
    home = tmp_path / "home"
    home.mkdir()
    hidden = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden} | {"HOME": str(home)}
    command = [sys.executable, "-c", RUN, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr[-2000:]
    assert not list(home.rglob("*"))
