"""How a format names its tensors, and how they become ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..model import ModelConfig

State = dict[str, Tensor]
MOST = 1000  # layers or heads; a damaged file might ask for a thousand million
_CONV = "encoder.transformer.pos_conv_embed.conv."


@dataclass(frozen=True)
class Layout:
    """The tensors of a format.

    Args:
        renames: regular expression for a whole name there -> our name (may refer to groups).
        left_out: regular expressions for whole names that are not used on purpose: heads and
            embeddings of the pre-training task.
    """

    renames: dict[str, str]
    left_out: tuple[str, ...] = ()

    def translate(self, state: Mapping[str, Any], source: str) -> State:
        """Tensors by our names, each with memory of its own.

        Raises:
            CheckpointError: a tensor is neither known nor left out on purpose; all are named.
        """
        translated: State = {}
        faults = []
        for name, value in state.items():
            if any(re.fullmatch(pattern, name) for pattern in self.left_out):
                continue
            ours = self._rename(name)
            if ours is None:
                faults.append(f"tensor {name} is of no use here and not known")
            elif not isinstance(value, Tensor):
                faults.append(f"{name} is {value!r}, expected a tensor")
            elif ours in translated:
                faults.append(f"tensor {name} is there twice, by different names")
            else:
                translated[ours] = _own(value)
        if faults:
            more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
            raise CheckpointError(f"{source}: " + "; ".join(faults[:5]) + more)
        return translated

    def _rename(self, name: str) -> str | None:
        for pattern, ours in self.renames.items():
            if match := re.fullmatch(pattern, name):
                return match.expand(ours)
        return None


def count_faults(values: Mapping[str, Any], *names: str) -> list[str]:
    """What is wrong with numbers of layers or heads, before anything is made so many times."""
    return [
        f"{name} is {values[name]!r}, allowed: 1 to {MOST}"
        for name in names
        if type(values[name]) is not int or not 1 <= values[name] <= MOST
    ]


def positional_conv(theirs: str) -> dict[str, str]:
    """Renames for the positional convolution's bias and weight norm, in both of torch's spellings.

    Args:
        theirs: regular expression for what is before the parts' names there.
    """
    return {
        rf"{theirs}(bias|weight_g|weight_v)": rf"{_CONV}\1",
        rf"{theirs}parametrizations\.weight\.original0": f"{_CONV}weight_g",
        rf"{theirs}parametrizations\.weight\.original1": f"{_CONV}weight_v",
    }


def complete(state: State, config: ModelConfig) -> State:
    """Add the frozen scale after the extractor, which only models of this package have."""
    return {**state, "feature_extractor.dummy_weight": torch.ones(config.conv_channels[-1])}


def _own(tensor: Tensor) -> Tensor:
    """The tensor, copied if it is a part or a transposition of other memory."""
    tensor = tensor.detach()
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
