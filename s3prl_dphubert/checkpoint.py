"""The only reader and writer of model weights. Loads data, never code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import released
from .errors import CheckpointError
from .model import ModelConfig, SpeechModel
from .student import GateConfig, Student

FORMAT_VERSION = 1
MODEL_TYPE = "dphubert"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def load_model(source: str | Path) -> SpeechModel:
    """Load a model in float32 and eval mode.

    Args:
        source: a checkpoint directory, or a released ``.pth`` file (with or without its
            distillation projections; both spellings of weight norm).

    Raises:
        CheckpointError: nothing is there, or it is damaged, incomplete, of a newer format or
            would have to execute code; the message names the tensor or field.
    """
    source = Path(source)
    if source.is_dir():
        config, state = _read_directory(source)
    elif source.is_file():
        config, state, gates = _read_released(source)
        if gates:
            raise CheckpointError(f"{source}: holds the gates of a student in training; prune it first")
    else:
        raise CheckpointError(f"{source}: no such file or directory")
    return build_model(config, state, source)


def load_student(source: str | Path, exact: bool = True) -> Student:
    """Load a student in stage 1, with its gates, from a ``.pth`` of the published code.

    Raises:
        CheckpointError: as :func:`load_model`, or there are no gates.
    """
    source = Path(source)
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file")
    config, state, log_alphas = _read_released(source)
    if not log_alphas:
        raise CheckpointError(f"{source}: holds no gates (hard_concrete.log_alpha)")
    kinds = tuple(dict.fromkeys(kind for kind, _ in log_alphas))
    student = Student(build_model(config, state, source), GateConfig(kinds=kinds, exact=exact))
    for kind, layer, gate in student.gates.items():
        if (kind, layer) not in log_alphas:
            raise CheckpointError(f"{source}: log_alpha of {kind} {layer} is missing")
        found, wanted = log_alphas[kind, layer].shape, gate.log_alpha.shape
        if found != wanted:
            message = f"log_alpha of {kind} {layer} has shape {tuple(found)}, expected {tuple(wanted)}"
            raise CheckpointError(f"{source}: {message}")
        gate.log_alpha.data.copy_(log_alphas[kind, layer])
    return student.eval()


def save_model(
    model: SpeechModel, target: str | Path, card: str = "", dtype: torch.dtype | None = None
) -> Path:
    """Write a checkpoint directory; it appears whole or not at all.

    Args:
        model: what to save.
        target: directory that does not exist yet.
        card: Markdown put into the model card below its generated head.
        dtype: store weights in that type (``torch.float16`` halves the file).

    Raises:
        CheckpointError: ``target`` exists.
    """
    target = Path(target)
    if target.exists():
        raise CheckpointError(f"{target}: exists already; choose another place or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    partial.mkdir()
    try:
        config = {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION, **model.config.to_dict()}
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
        state = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
        save_file(state, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / WEIGHTS).chmod((partial / CONFIG).stat().st_mode)  # safetensors writes 0600
        (partial / CARD).write_text(card or f"# {target.name}\n", encoding="utf8")
        os.replace(partial, target)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a truncated or foreign file is a :class:`CheckpointError`."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def read_pickle(path: Path) -> Any:
    """Read a torch file through ``weights_only``; code in it is refused and does not run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).split("\n")[0]
        raise CheckpointError(f"{path}: refused, holds more than plain tensors ({first})") from error
    except Exception as error:  # torch raises whatever a damaged archive provokes
        raise CheckpointError(f"{path}: damaged or not a torch file ({type(error).__name__})") from error


def _read_directory(source: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    for name in (CONFIG, WEIGHTS):
        if not (source / name).is_file():
            raise CheckpointError(f"{source}: {name} is missing")
    try:
        values = json.loads((source / CONFIG).read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{source / CONFIG}: not valid JSON ({error})") from error
    if not isinstance(values, dict) or values.pop("model_type", None) != MODEL_TYPE:
        raise CheckpointError(f"{source / CONFIG}: model_type is not {MODEL_TYPE!r}")
    version = values.pop("format_version", None)
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{source / CONFIG}: format_version is {version!r}, this version reads up to {FORMAT_VERSION}"
        )
    return _checked(lambda: ModelConfig.from_dict(values), source / CONFIG), read_tensors(source / WEIGHTS)


def _read_released(source: Path) -> tuple[ModelConfig, dict[str, Tensor], dict[tuple[str, int], Tensor]]:
    content = read_pickle(source)
    for name in ("state_dict", "config"):
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            raise CheckpointError(f"{source}: {name} is missing; not a released checkpoint")
    config = _checked(lambda: released.read_config(content["config"]), source)
    weights, gates = released.read_state(content["state_dict"])
    return config, weights, gates


def _checked(read: Any, source: Path) -> ModelConfig:
    try:
        return read()
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise CheckpointError(f"{source}: {error}") from error


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
    bad = next((n for n in wanted if not bool(state[n].isfinite().all())), None)
    if bad is not None:
        raise CheckpointError(f"{source}: tensor {bad} has non-finite values")
    model.load_state_dict({name: state[name].float() for name in wanted}, assign=True)
    model.feature_extractor.dummy_weight.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name != "feature_extractor.dummy_weight":
            parameter.requires_grad_(True)
    return model.eval()
