"""Checkpoint directories of this package: ``config.json``, ``model.safetensors`` and a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import CheckpointError, shown
from ..model import ModelConfig, SpeechModel
from ..model.state_dict import checkpoint_errors
from ..utils.files import new_folder, parse_json, read_limited
from .key_mapping import State, Weights

FORMAT_VERSION = 1
LARGEST_JSON = 4 << 20  # bytes; the list of tensors of a model in 100 parts has some 100,000
MODEL_TYPE = "dphubert"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def save_model(
    model: SpeechModel, target: str | Path, card: str = "", dtype: torch.dtype | None = None
) -> Path:
    """Write a checkpoint directory; it appears whole or not at all.

    Args:
        model: model to save.
        target: directory that does not exist yet.
        card: model card in Markdown; a heading by default.
        dtype: type of the stored weights (``torch.float16`` halves the file); unchanged by default.

    Returns:
        ``target``.

    Raises:
        CheckpointError: ``target`` exists or cannot be written.
    """
    target = Path(target)
    with new_folder(target) as partial:
        config = {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION, **model.config.to_dict()}
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf8")
        state = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
        try:
            save_file(state, partial / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise CheckpointError(f"{target}: cannot be written ({error})") from error
        (partial / WEIGHTS).chmod((partial / CONFIG).stat().st_mode)  # safetensors writes 0600
        (partial / CARD).write_text(card or f"# {target.name}\n", encoding="utf8")
    return target


def read_tensors(path: Path) -> State:
    """Read a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or of another format.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def read_mapping(path: Path, source: str) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Args:
        path: file to read.
        source: the model it belongs to, for messages.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        values = parse_json(read_limited(path, LARGEST_JSON))
    except (ValueError, OSError) as error:  # ValueError: neither UTF-8 nor JSON
        raise CheckpointError(f"{source}: {path.name} is not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{source}: {path.name} holds {type(values).__name__}, expected a mapping")
    return values


def read(folder: Path) -> Weights:
    """Read a directory that :func:`save_model` wrote.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is newer than this version.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing")
    path = folder / CONFIG
    values = read_mapping(path, str(folder))
    if (kind := values.pop("model_type", None)) != MODEL_TYPE:
        raise CheckpointError(f"{path}: model_type is {shown(kind)}, expected {MODEL_TYPE!r}")
    version = values.pop("format_version", None)
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version is {shown(version)}, this version reads up to {FORMAT_VERSION}"
        )
    with checkpoint_errors(path):
        config = ModelConfig.from_dict(values)
    return config, read_tensors(folder / WEIGHTS)
