"""Read state dicts without running code, and build models from them."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, DPHubertError, RunError, shown
from ..utils import pickle_bounds
from .model_config import ModelConfig
from .speech_model import SpeechModel

_MAX_FAULTS = 5  # shown of a list that may have one for each tensor


def load_weights_only(path: str | Path) -> Any:
    """Read a ``torch.save`` file that should hold only tensors and plain values, as this package writes them.

    ``torch.load(weights_only=True)`` refuses everything else. Files of other projects, which pickle
    objects of their own, are read by :func:`~s3prl_dphubert.checkpoints.unpickler.read_foreign_pickle`.

    Raises:
        CheckpointError: the file is missing, damaged or holds other objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickle_bounds.check_archive(archive)
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    pickle_bounds.check(io.BytesIO(archive.read(name)))
            if (changed := archive.testzip()) is not None:  # torch itself does not look
                raise CheckpointError(f"damaged: {shown(changed)} has another checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, holds more than plain tensors, or is damaged") from error
    except Exception as error:  # torch raises whatever a damaged archive provokes
        raise CheckpointError(f"{path}: damaged or not a torch file ({type(error).__name__})") from error


@contextmanager
def checkpoint_errors(source: str | Path) -> Iterator[None]:
    """Turn whatever malformed values provoke into a :class:`CheckpointError` naming their source."""
    try:
        yield
    except (CheckpointError, RunError):
        raise
    except DPHubertError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # values of other types and sizes provoke errors of any class
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{source}: damaged, or of an unknown kind ({reason})") from error


def raise_tensor_faults(source: str | Path, faults: list[str]) -> None:
    """Raise a :class:`CheckpointError` that lists the first faults, if there are any."""
    if faults:
        more = f" and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise CheckpointError(f"{source}: " + "; ".join(faults[:_MAX_FAULTS]) + more)


def not_tensors(state: Mapping[str, Any]) -> list[str]:
    """Return a fault for every value of a state that is not a tensor."""
    return [
        f"{name} is {type(value).__name__}, expected a tensor"
        for name, value in state.items()
        if not isinstance(value, Tensor)
    ]


def without_empty(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out tensors without elements, which sublayers without units had in early checkpoints."""
    return {name: tensor for name, tensor in state.items() if tensor.numel()}


def build_model(config: ModelConfig, state: dict[str, Tensor], source: str | Path) -> SpeechModel:
    """Build a model from its configuration and tensors, in float32 and eval mode.

    Args:
        config: shape of the model.
        state: its tensors by name; those in float32 become the parameters without a copy.
        source: origin of the tensors, for messages.

    Raises:
        CheckpointError: a tensor is missing, unexpected, not finite, or of the wrong shape or type, or a
            value is not a tensor.
    """
    try:
        with torch.device("meta"):
            model = SpeechModel(config)
    except (RuntimeError, TypeError, ArithmeticError) as error:  # more weights than torch can count
        raise CheckpointError(f"{source}: no model can have this configuration ({error})") from error
    raise_tensor_faults(source, not_tensors(state))
    state = without_empty(state)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    faults = [f"tensor {name} is missing" for name in shapes if name not in state]
    faults += [f"tensor {name} is unexpected" for name in state if name not in shapes]
    faults += [
        f"tensor {name} has shape {tuple(state[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    faults += [
        f"tensor {name} has type {state[name].dtype}, expected a floating type"
        for name in shapes
        if name in state and not state[name].is_floating_point()
    ]
    faults += [
        f"tensor {name} has only {state[name].untyped_storage().nbytes():,} bytes of memory"
        for name in shapes
        if name in state and state[name].untyped_storage().nbytes() < state[name].nbytes
    ]
    raise_tensor_faults(source, faults)
    for name in shapes:
        # The sum alone takes a tenth of the time, but may overflow.
        if not (bool(state[name].sum().isfinite()) or bool(state[name].isfinite().all())):
            raise CheckpointError(f"{source}: tensor {name} has non-finite values")
    model.load_state_dict({name: state[name].float() for name in shapes}, assign=True)
    model.unfreeze()
    return model.eval()
