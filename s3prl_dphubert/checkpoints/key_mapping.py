"""Map the tensor names of a format to those of this package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, shown
from ..model import ModelConfig
from ..model.state_dict import raise_tensor_faults
from ..utils.config_io import is_int

State = dict[str, Tensor]
Weights = tuple[ModelConfig, State]
"""Result of every format's reader: the configuration, and the tensors by our names."""

MAX_COUNT = 1000  # layers or heads; a damaged file might ask for a thousand million
MAX_TENSORS = 50_000
_CONV = "encoder.transformer.pos_conv_embed.conv."
_BATCH_NORM = "encoder.transformer.pos_conv_embed.batch_norm."
_BATCH_NORM_EPS = 1e-5  # of torch, which no implementation changes


@dataclass(frozen=True)
class KeyMapping:
    """Tensor names of a format.

    Args:
        renames: regular expression for a whole name in the format -> our name, which may refer to groups.
        ignored: regular expressions for whole names of tensors that are left out on purpose: heads and
            embeddings of the pre-training task.
    """

    renames: dict[str, str]
    ignored: tuple[str, ...] = ()

    def translate(self, state: Mapping[str, Any], source: str) -> State:
        """Return the tensors by our names, each with memory of its own.

        Raises:
            CheckpointError: a tensor is neither mapped nor ignored; the message lists all of them.
        """
        translated: State = {}
        faults = []
        if len(state) > MAX_TENSORS:
            raise CheckpointError(f"{source}: has {len(state):,} tensors, allowed: up to {MAX_TENSORS:,}")
        for name, value in state.items():
            if any(re.fullmatch(pattern, name) for pattern in self.ignored):
                continue
            matches = ((re.fullmatch(pattern, name), ours) for pattern, ours in self.renames.items())
            ours = next((match.expand(ours) for match, ours in matches if match), None)
            if ours is None:
                faults.append(f"unknown tensor {name}")
            elif not isinstance(value, Tensor):
                faults.append(f"{name} is {shown(value)}, expected a tensor")
            elif ours in translated:
                faults.append(f"tensor {name} is there twice, by different names")
            else:
                translated[ours] = _own_memory(value)
        raise_tensor_faults(source, faults)
        return translated


def count_faults(values: Mapping[str, Any], *names: str) -> list[str]:
    """Return the faults of numbers of layers or heads, before anything is made so many times."""
    return [
        f"{name} is {shown(values[name])}, allowed: 1 to {MAX_COUNT}"
        for name in names
        if not is_int(values[name]) or not 1 <= values[name] <= MAX_COUNT
    ]


def positional_conv(prefix: str) -> dict[str, str]:
    """Return the renames for a positional convolution with weight norm, in both of torch's spellings.

    Args:
        prefix: regular expression for the beginning of the tensors' names in the format.
    """
    return {
        rf"{prefix}(bias|weight_g|weight_v)": rf"{_CONV}\1",
        rf"{prefix}parametrizations\.weight\.original0": f"{_CONV}weight_g",
        rf"{prefix}parametrizations\.weight\.original1": f"{_CONV}weight_v",
    }


def batch_norm_conv(norm: str, conv: str) -> dict[str, str]:
    """Return the renames for a positional convolution after a BatchNorm.

    Args:
        norm: regular expression for the beginning of the names of the norm's tensors in the format.
        conv: regular expression for the beginning of those of the convolution.
    """
    return {
        rf"{norm}(weight|bias|running_mean|running_var)": rf"{_BATCH_NORM}\1",
        rf"{conv}weight": f"{_CONV}weight_k",
        rf"{conv}bias": f"{_CONV}bias",
    }


def fold_batch_norm(state: State, source: str) -> State:
    """Return the state with the statistics of the BatchNorm before the positional convolution multiplied in.

    Raises:
        CheckpointError: a tensor of the norm is missing, or they have different shapes.
    """
    names = ("weight", "bias", "running_mean", "running_var")
    statistics = {name: state.get(_BATCH_NORM + name) for name in names}
    faults = [
        f"tensor {_BATCH_NORM}{name} is missing" for name, tensor in statistics.items() if tensor is None
    ]
    raise_tensor_faults(source, faults)
    weight, bias, mean, variance = (tensor.double() for tensor in statistics.values() if tensor is not None)
    if not weight.shape == bias.shape == mean.shape == variance.shape:
        raise CheckpointError(f"{source}: the tensors {_BATCH_NORM}* have different shapes")
    scale = weight / (variance + _BATCH_NORM_EPS).sqrt()
    folded = {"weight": scale.float(), "bias": (bias - mean * scale).float()}
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(_BATCH_NORM)}
    return rest | {_BATCH_NORM + name: tensor for name, tensor in folded.items()}


def add_extractor_scale(state: State, config: ModelConfig) -> State:
    """Return the state with the frozen scale after the extractor, which only our models have."""
    return {**state, "feature_extractor.dummy_weight": torch.ones(config.conv_channels[-1])}


def _own_memory(tensor: Tensor) -> Tensor:
    """Return the tensor, copied if it is a part or a transposition of other memory."""
    tensor = tensor.detach()
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
