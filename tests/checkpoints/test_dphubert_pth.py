"""The released format: what is written comes back the same, and is as the published code wants it."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.checkpoints import dphubert_pth
from s3prl_dphubert.checkpoints.dphubert_pth import load_student
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import CheckpointError
from s3prl_dphubert.model import SpeechModel
from s3prl_dphubert.model.cost import parameters
from s3prl_dphubert.pruning.structured import prune
from tests.helpers.golden import GATED, GOLDEN
from tests.helpers.models import assert_same, gated, outputs, tiny

FILES = (
    "hubert_post_norm",
    "hubert_pre_norm",
    "wavlm",
    "hubert_post_norm_pruned",
    "wavlm_pruned",
    *(f"{name}.pruned" for name in GATED),
)


def content(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", FILES)
def test_published_files_come_back(name, tmp_path):
    source, target = GOLDEN / f"{name}.pth", tmp_path / "sub" / "back.pth"
    model = load_model(source)
    assert dphubert_pth.write(model, target) == {}
    assert_same(outputs(model), outputs(load_model(target)), 0.0)
    wanted, written = content(source), content(target)
    assert set(written) == {"state_dict", "config", "distill_linear_projs"}
    assert set(written["config"]) == set(wanted["config"])
    differing = {key for key, value in wanted["config"].items() if written["config"][key] != value}
    # A sublayer that is not there keeps its former width in some files; nobody reads it.
    assert differing <= {"encoder_num_heads", "encoder_remaining_heads", "encoder_ff_interm_features"}
    assert {k: v.shape for k, v in written["state_dict"].items()} == {
        k: v.shape for k, v in wanted["state_dict"].items()
    }
    assert all(torch.equal(written["state_dict"][k], v) for k, v in wanted["state_dict"].items())


def shaped(shape, heads, ffn=(24, 24, 24)):
    """A tiny model with these sublayers, some of them empty."""
    torch.manual_seed(3)
    model = SpeechModel(replace(tiny(shape).config, heads=heads, ffn=ffn))
    for tensor in model.parameters():
        if tensor.numel():
            tensor.data.add_(torch.randn_like(tensor) * 0.2)
    return model.eval()


WHOLE = (0, 1, 2, 3)


@pytest.mark.parametrize("shape", ["hubert", "large", "wavlm"])
@pytest.mark.parametrize(
    ("heads", "ffn"),
    [
        (((), WHOLE, (1,)), (24, 0, 3)),
        ((WHOLE, (), None), (0, 0, None)),
        ((None, WHOLE, ()), (None, 24, 0)),
        (((), (), ()), (0, 0, 0)),
        ((None, (), None), (None, 5, None)),
        ((None, None, None), (1, 2, 3)),
    ],
)
def test_emptied_sublayers(shape, heads, ffn, tmp_path):
    model = shaped(shape, heads, ffn)
    added = dphubert_pth.write(model, tmp_path / "a.pth")
    back = load_model(tmp_path / "a.pth")
    assert_same(outputs(model), outputs(back), 1e-5)
    assert sum(added.values()) == parameters(back.config) - parameters(model.config)
    state, config = content(tmp_path / "a.pth")["state_dict"], content(tmp_path / "a.pth")["config"]
    for index in range(3):
        layer = f"encoder.transformer.layers.{index}"
        attention = config["encoder_use_attention"][index]
        assert any(key.startswith(f"{layer}.attention.") for key in state) == attention
        assert (f"{layer}.feed_forward.output_dense.bias" in state) == (ffn[index] is not None)
        width = state[f"{layer}.attention.k_proj.weight"].shape[0] if attention else 8
        assert width >= 8  # the published code knows no attention without heads
    if shape == "wavlm" and any(config["encoder_use_attention"]):
        assert config["encoder_use_attention"][0]
        assert state[dphubert_pth.PUBLISHED_TABLE].shape == (32, 4)
        if heads[0] is None:
            assert not state["encoder.transformer.layers.0.attention.out_proj.bias"].any()
    assert bool(added) == (() in heads or 0 in ffn)


def test_pruned_student_with_every_sort_of_gate(tmp_path):
    for name in GATED:
        model = prune(load_student(GOLDEN / f"{name}.pth"))
        dphubert_pth.write(model, tmp_path / f"{name}.pth")
        assert_same(outputs(model), outputs(load_model(tmp_path / f"{name}.pth")), 1e-5)
    model = prune(gated(tiny("wavlm"), spread=4.0))
    dphubert_pth.write(model, tmp_path / "tiny.pth")
    assert_same(outputs(model), outputs(load_model(tmp_path / "tiny.pth")), 1e-5)


def test_projections_and_types(tmp_path):
    before = copy.deepcopy(tiny("hubert").state_dict())
    model = tiny("hubert")
    dphubert_pth.write(model, tmp_path / "half.pth", torch.float16)
    assert {t.dtype for t in content(tmp_path / "half.pth")["state_dict"].values()} == {torch.float16}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert_same(outputs(model), outputs(load_model(tmp_path / "half.pth")), 1e-2)


def test_what_the_format_cannot_say_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="pos_conv_depth is 3, allowed: 1"):
        dphubert_pth.write(tiny("data2vec"), tmp_path / "a.pth")
    assert list(tmp_path.iterdir()) == []


def test_existing_files_and_bad_places(tmp_path):
    dphubert_pth.write(tiny("hubert"), tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    with pytest.raises(CheckpointError, match="exists already"):
        dphubert_pth.write(tiny("wavlm"), tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == data
    with pytest.raises(CheckpointError, match="cannot be written"):
        dphubert_pth.write(tiny("wavlm"), tmp_path / "a.pth" / "b.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
