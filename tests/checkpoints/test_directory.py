"""Checkpoints: round trips, released files, and a clear error for every kind of damage."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.dphubert_pth import load_student
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import CheckpointError
from tests.helpers.golden import GOLDEN
from tests.helpers.models import outputs, tiny


@pytest.fixture
def saved(tmp_path):
    return save_model(tiny("wavlm"), tmp_path / "model", card="# A card\n")


def test_round_trip(saved):
    model = load_model(saved)
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "modeling_dphubert.py",
        "preprocessor_config.json",
    ]
    assert (saved / "README.md").read_text() == "# A card\n"
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1
    for a, b in zip(outputs(tiny("wavlm")), outputs(model), strict=True):
        assert torch.equal(a, b)
    assert not model.training
    trainable = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert trainable == {"feature_extractor.dummy_weight"}


def test_a_config_from_before_the_epsilon_was_stated_has_fairseqs(saved):
    values = json.loads((saved / "config.json").read_text())
    assert values.pop("normalize_eps") == 1e-5
    (saved / "config.json").write_text(json.dumps(values))
    assert load_model(saved).config == tiny("wavlm").config


def test_half_precision_storage(tmp_path):
    folder = save_model(tiny("hubert"), tmp_path / "half", dtype=torch.float16)
    whole = save_model(tiny("hubert"), tmp_path / "whole")
    sizes = [(f / "model.safetensors").stat().st_size for f in (folder, whole)]
    assert sizes[0] < 0.6 * sizes[1]
    assert next(load_model(folder).parameters()).dtype == torch.float32


def test_both_spellings_of_weight_norm_and_projections(tmp_path):
    content = torch.load(GOLDEN / "wavlm.pth", weights_only=True)
    conv = "encoder.transformer.pos_conv_embed.conv."
    state = content["state_dict"]
    state[f"{conv}parametrizations.weight.original0"] = state.pop(f"{conv}weight_g")
    state[f"{conv}parametrizations.weight.original1"] = state.pop(f"{conv}weight_v")
    content["distill_linear_projs"] = {"0.weight": torch.eye(2)}
    torch.save(content, tmp_path / "new.pth")
    old, new = load_model(GOLDEN / "wavlm.pth"), load_model(tmp_path / "new.pth")
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))


def test_existing_target_is_kept(saved):
    with pytest.raises(CheckpointError, match="exists already"):
        save_model(tiny("hubert"), saved)
    assert load_model(saved).config.num_buckets == 32


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("s3prl_dphubert.checkpoints.directory.save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(tiny("hubert"), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


class Boom:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.mkdir, (str(self.flag),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_pickled_code_is_refused_and_not_run(tmp_path, how):
    flag, path = tmp_path / "executed", tmp_path / "evil.pth"
    content = {"state_dict": {}, "config": Boom(flag)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    for load in (load_model, load_student):
        with pytest.raises(CheckpointError, match=r"evil\.pth"):
            load(path)
    assert not flag.exists()
    pickle.loads(pickle.dumps(Boom(flag)))  # the file would have executed code
    assert flag.exists()


def edit_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    values.update(changes)
    values = {key: value for key, value in values.items() if value != "DELETE"}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version is 2, this version reads up to 1"),
        ({"format_version": "DELETE"}, "format_version is None"),
        ({"model_type": "bert"}, "model_type is 'bert', allowed: dphubert, hubert"),
        ({"embed_dim": "DELETE"}, "embed_dim is missing"),
        ({"colour": 3}, "colour: unknown field"),
        ({"extractor_mode": "batch"}, "extractor_mode is 'batch', allowed: group_norm, layer_norm"),
        (
            {"ffn": [24, 24, 23]},
            r"feed_forward.intermediate_dense.weight has shape \(24, 32\), expected \(23, 32\)",
        ),
        ({"heads": [[0, 9], [0], [0]]}, r"heads\[0\] is \(0, 9\)"),
        ({"heads": 7}, "heads is 7, expected a list"),
    ],
)
def test_wrong_configuration(saved, changes, message):
    edit_config(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_model(saved)


def test_missing_unexpected_and_non_finite_tensors(saved):
    path = saved / "model.safetensors"
    state = load_file(path)
    moved = dict(state)
    moved["encoder.extra"] = moved.pop("encoder.transformer.layer_norm.bias")
    save_file(moved, path)
    with pytest.raises(CheckpointError) as caught:
        load_model(saved)
    assert "encoder.transformer.layer_norm.bias is missing" in str(caught.value)
    assert "encoder.extra is unexpected" in str(caught.value)
    state["encoder.transformer.layer_norm.bias"][3] = float("nan")
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"layer_norm\.bias has non-finite"):
        load_model(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_truncated_and_missing_files(saved, name):
    path = saved / name
    data = path.read_bytes()
    for size in (0, 5, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        if name == "config.json" and size == len(data) - 1:
            continue  # only the final newline is gone
        with pytest.raises(CheckpointError, match=name):
            load_model(saved)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_model(saved)


def test_truncated_released_file(tmp_path):
    data = (GOLDEN / "wavlm.pth").read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 10):
        (tmp_path / "cut.pth").write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"cut\.pth"):
            load_model(tmp_path / "cut.pth")


def test_students_and_models_are_told_apart():
    with pytest.raises(CheckpointError, match="holds the gates of a student"):
        load_model(GOLDEN / "wavlm_gated.pth")
    with pytest.raises(CheckpointError, match="holds no gates"):
        load_student(GOLDEN / "wavlm.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        load_model(GOLDEN / "nothing.pth")


def test_released_config_without_a_key(tmp_path):
    content = torch.load(GOLDEN / "wavlm.pth", weights_only=True)
    del content["config"]["encoder_embed_dim"]
    torch.save(content, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="encoder_embed_dim is missing"):
        load_model(tmp_path / "cut.pth")


def test_released_state_with_another_value(tmp_path):
    content = torch.load(GOLDEN / "wavlm.pth", weights_only=True)
    content["state_dict"]["encoder.transformer.layer_norm.bias"] = [1.0]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"layer_norm\.bias is list, expected a tensor"):
        load_model(tmp_path / "a.pth")
