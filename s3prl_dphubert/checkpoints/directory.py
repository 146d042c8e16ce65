"""The only reader and writer of model weights. Loads data, never code."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import CheckpointError
from ..model import ModelConfig, SpeechModel
from ..model.state_dict import checked_config
from ..utils.files import new_folder

FORMAT_VERSION = 1
MODEL_TYPE = "dphubert"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


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


def read_directory(source: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
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
    return checked_config(lambda: ModelConfig.from_dict(values), source / CONFIG), read_tensors(
        source / WEIGHTS
    )
