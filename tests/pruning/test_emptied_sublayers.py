"""Models with sublayers of which pruning leaves only the output bias, in the hands of other tools."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.export import Dim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.model.masks import Masks
from s3prl_dphubert.model.state_dict import build_model
from s3prl_dphubert.pruning.structured import cut
from tests.helpers.models import SHAPES, assert_same, outputs, tiny

MASKS = Masks(heads={0: torch.zeros(4)}, ffn={1: torch.zeros(24)}, exact=True)
DDP = """
import sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from s3prl_dphubert.checkpoints.load import load_model
rank, world, store, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
model = DistributedDataParallel(load_model(folder).train())
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
torch.manual_seed(rank)
for _ in range(3):
    optimizer.zero_grad()
    model(torch.randn(2, 4000))[0][-1].square().mean().backward()
    optimizer.step()
total = sum(p.double().sum() for p in model.parameters())
totals = [torch.zeros_like(total) for _ in range(world)]
dist.all_gather(totals, total.detach())
print("equal" if all(torch.equal(one, total) for one in totals) else "different", flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def emptied(shape):
    model = cut(tiny(shape), MASKS)
    assert (model.config.heads[0], model.config.ffn[1]) == ((), 0)
    return model


def with_empty_tensors(model):
    """State of the model as versions before had it, with tensors without elements."""
    layers, width = "encoder.transformer.layers.", model.config.embed_dim
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for projection in ("q_proj", "k_proj", "v_proj"):
        state[f"{layers}0.attention.{projection}.weight"] = torch.zeros(0, width)
        state[f"{layers}0.attention.{projection}.bias"] = torch.zeros(0)
    state[f"{layers}0.attention.out_proj.weight"] = torch.zeros(width, 0)
    state[f"{layers}1.feed_forward.intermediate_dense.weight"] = torch.zeros(0, width)
    state[f"{layers}1.feed_forward.intermediate_dense.bias"] = torch.zeros(0)
    state[f"{layers}1.feed_forward.output_dense.weight"] = torch.zeros(width, 0)
    return state


@pytest.mark.parametrize("shape", SHAPES)
def test_emptied_sublayers_have_their_bias_and_nothing_else(shape, tmp_path):
    dense = tiny(shape)
    model = emptied(shape)
    assert all(parameter.numel() for parameter in model.parameters())
    names = [name for name, _ in model.named_parameters()]
    assert [n for n in names if "layers.0.attention" in n] == [
        "encoder.transformer.layers.0.attention.out_proj.bias"
    ]
    assert [n for n in names if "layers.1.feed_forward" in n] == [
        "encoder.transformer.layers.1.feed_forward.output_dense.bias"
    ]
    assert_same(outputs(model), outputs(dense, MASKS))
    again = cut(model, Masks(attention={0: torch.tensor([0.5])}, exact=True))
    bias = model.encoder.transformer.layers[0].attention.out_proj.bias
    assert torch.equal(again.encoder.transformer.layers[0].attention.out_proj.bias, bias / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_files_with_tensors_without_elements_are_read(shape, tmp_path):
    model = emptied(shape)
    state = with_empty_tensors(model)
    assert len(state) == len(model.state_dict()) + 10
    assert_same(outputs(build_model(model.config, state, "x")), outputs(model), 0)
    save_model(model, tmp_path / "model")
    assert set(load_file(tmp_path / "model" / "model.safetensors")) == set(model.state_dict())
    save_file(state, tmp_path / "model" / "model.safetensors")
    assert_same(outputs(load_model(tmp_path / "model")), outputs(model), 0)


@pytest.mark.torchrun
@pytest.mark.parametrize(
    ("world", "shape"), [(1, "hubert"), (1, "wavlm"), (2, "hubert"), (2, "wavlm"), (2, "large")]
)
def test_distributed_data_parallel_trains_them_with_its_defaults(tmp_path, world, shape):
    save_model(emptied(shape), tmp_path / "model")
    places = [str(world), str(tmp_path / "store"), str(tmp_path / "model")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", DDP, str(rank), *places],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(world)
    ]
    for process in ranks:
        printed, errors = process.communicate(timeout=120)
        assert printed.splitlines()[-1:] == ["equal"], errors[-2000:]  # torch 2.8 prints its peers first


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize")
@pytest.mark.parametrize("shape", SHAPES)
def test_dynamic_quantization_and_copies_work(shape, tmp_path):
    model = emptied(shape)
    assert_same(outputs(copy.deepcopy(model)), outputs(model), 0)
    torch.save(model, tmp_path / "model.pt")
    assert_same(outputs(torch.load(tmp_path / "model.pt", weights_only=False)), outputs(model), 0)
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    assert any("quantized" in type(module).__module__ for module in quantized.modules())
    assert_same(outputs(quantized), outputs(model), 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_torch_export_with_dynamic_batch_and_length(shape, padded):
    model = emptied(shape)

    def inputs(batch, samples):
        generator = torch.Generator().manual_seed(samples)
        lengths = samples - 50 * torch.arange(batch)
        waveforms = torch.randn(batch, samples, generator=generator) * 0.1
        waveforms[torch.arange(samples) >= lengths[:, None]] = 0.0
        return (waveforms, lengths) if padded else (waveforms,)

    dynamic = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, {0: Dim.DYNAMIC})[: 1 + padded]
    exported = torch.export.export(model, inputs(2, 4000), dynamic_shapes=dynamic).module()
    for batch, samples in ((2, 4000), (1, 5000), (3, 1200)):
        arguments = inputs(batch, samples)
        hidden, frames = model(*arguments)
        again, same_frames = exported(*arguments)
        assert_same(again, hidden, 1e-5)
        assert frames is same_frames is None or torch.equal(frames, same_frames)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_average_of_weights_follows_them(shape):
    model = emptied(shape).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    average.update_parameters(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.randn(2, 4000))[0][-1].square().mean().backward()
    optimizer.step()
    average.update_parameters(model)
    halfway = [(old + new) / 2 for old, new in zip(before, model.parameters(), strict=True)]
    assert_same(list(average.module.parameters()), halfway, 1e-6)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert len(average.module.eval().extract_features(torch.randn(1, 4000))[0]) == 4


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_that_can_train_has_a_gradient(shape, tmp_path):
    model = load_model(save_model(emptied(shape), tmp_path / "model")).train()
    model(torch.randn(2, 4000))[0][-1].square().mean().backward()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trainable
    fixed = {name for name, _ in model.named_parameters()} - trainable
    assert "feature_extractor.dummy_weight" in fixed
    assert all("layer_norm" in name for name in fixed - {"feature_extractor.dummy_weight"})
    assert len(fixed) == (1 if not model.config.layer_norm_first else 7)
