"""Weights on their way into a model: as data only, every tensor where it belongs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .model_config import ModelConfig
from .speech_model import SpeechModel


def load_weights_only(path: Path) -> Any:
    """Read a torch file through ``weights_only``; code in it is refused and does not run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).split("\n")[0]
        raise CheckpointError(f"{path}: refused, holds more than plain tensors ({first})") from error
    except Exception as error:  # torch raises whatever a damaged archive provokes
        raise CheckpointError(f"{path}: damaged or not a torch file ({type(error).__name__})") from error


def build_model(config: ModelConfig, state: dict[str, Tensor], source: str | Path) -> SpeechModel:
    """Put tensors with our names into a model of that shape, in float32 and eval mode.

    Args:
        config: the model's shape.
        state: its tensors; their memory is taken over, not copied, where it is float32 already.
        source: where they come from, for messages.

    Raises:
        CheckpointError: a tensor is missing, unexpected, not finite or of another shape or type.
    """
    try:
        with torch.device("meta"):
            model = SpeechModel(config)
    except RuntimeError as error:  # more weights than torch can count
        raise CheckpointError(f"{source}: no model can have this configuration ({error})") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    faults = [f"tensor {name} is missing" for name in wanted if name not in state]
    faults += [f"tensor {name} is unexpected" for name in state if name not in wanted]
    faults += [
        f"tensor {name} has shape {tuple(state[name].shape)}, expected {shape}"
        for name, shape in wanted.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    faults += [
        f"tensor {name} has type {state[name].dtype}, expected a floating type"
        for name in wanted
        if name in state and not state[name].is_floating_point()
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(f"{source}: " + "; ".join(faults[:5]) + more)
    bad = next((name for name in wanted if not _is_finite(state[name])), None)
    if bad is not None:
        raise CheckpointError(f"{source}: tensor {bad} has non-finite values")
    model.load_state_dict({name: state[name].float() for name in wanted}, assign=True)
    model.feature_extractor.dummy_weight.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name != "feature_extractor.dummy_weight":
            parameter.requires_grad_(True)
    return model.eval()


def _is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite; their sum tells in a tenth of the time, unless it overflows."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def checked_config(read: Any, source: Path) -> ModelConfig:
    try:
        return read()
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise CheckpointError(f"{source}: {error}") from error
