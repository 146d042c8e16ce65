"""The only reader and writer of model weights. Loads data, never code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import released
from .errors import CheckpointError
from .files import new_folder
from .model import ModelConfig, SpeechModel
from .model.weights import build_model, read_pickle
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
    with new_folder(target) as partial:
        config = {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION, **model.config.to_dict()}
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
        state = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
        save_file(state, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / WEIGHTS).chmod((partial / CONFIG).stat().st_mode)  # safetensors writes 0600
        (partial / CARD).write_text(card or f"# {target.name}\n", encoding="utf8")
    return target


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a truncated or foreign file is a :class:`CheckpointError`."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


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
