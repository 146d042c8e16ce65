"""Inputs of a model, checked alike in the plain, the folded and the exported one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.export import load_exported
from s3prl_dphubert.export.export_config import ExportConfig
from s3prl_dphubert.export.exporter import export_model
from s3prl_dphubert.model.inference.folded import fold
from tests.helpers.models import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("inputs")
    source = save_model(tiny("hubert"), folder / "model")
    export_model(source, folder / "m.onnx", ExportConfig(format="onnx", precision="fp32", threads=1))
    return tiny("hubert"), fold(tiny("hubert")), load_exported(folder / "m.onnx", threads=1)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (
            torch.tensor([1.0, 0.5]),
            "lengths has type torch.float32, allowed: torch.int64, torch.int32 (samples)",
        ),
        (
            torch.tensor([True, True]),
            "lengths has type torch.bool, allowed: torch.int64, torch.int32 (samples)",
        ),
        (
            torch.tensor([200, 5]).byte(),
            "lengths has type torch.uint8, allowed: torch.int64, torch.int32 (samples)",
        ),
        (torch.tensor([4000, 4001]), "lengths has 4001, allowed: 1 to 4000 samples, those of waveforms"),
        (torch.tensor([4000, 0]), "lengths has 0, allowed: 1 to 4000 samples, those of waveforms"),
        (torch.tensor([-1, 4000]), "lengths has -1, allowed: 1 to 4000 samples, those of waveforms"),
        (torch.tensor([4000]), r"lengths has shape (1,), allowed: (2,)"),
        (torch.tensor([[4000], [2000]]), r"lengths has shape (2, 1), allowed: (2,)"),
    ],
)
def test_lengths_that_do_not_fit_are_refused_alike(models, lengths, message):
    waveforms = torch.randn(2, 4000)
    for model in models:
        with pytest.raises(ValueError) as caught:
            model.extract_features(waveforms, lengths)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("waveforms", "kind"),
    [
        (np.zeros((2, 4000), np.float32), "ndarray"),
        ([[0.0] * 4000], "list"),
        (torch.zeros(2, 4000, dtype=torch.int16), "torch.int16"),
    ],
)
def test_waveforms_of_other_kinds_are_refused_alike(models, waveforms, kind):
    for model in models:
        with pytest.raises(ValueError) as caught:
            model.extract_features(waveforms)
        expected = f"waveforms is {kind}, allowed: a torch tensor (B, T) of floating-point numbers"
        assert str(caught.value) == expected


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_lengths_of_both_integer_types_are_taken(models, dtype):
    lengths = torch.tensor([400, 1], dtype=dtype)
    for model in models:
        hidden, frames = model.extract_features(torch.randn(2, 400), lengths)
        assert hidden[0].shape[:2] == (2, 1)
        assert frames.tolist() == [1, 0]
