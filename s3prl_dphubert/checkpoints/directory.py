"""Checkpoint directories of this package, which transformers opens, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..constants import SAMPLE_RATE
from ..errors import CheckpointError, shown
from ..model import ModelConfig, SpeechModel
from ..model.state_dict import checkpoint_errors
from ..modeling import single_file
from ..utils.files import new_folder
from ..utils.readers import parse_json, read_json, reading
from .key_mapping import MAX_TENSORS, State, Weights

FORMAT_VERSION = 1
MODEL_TYPE = "dphubert"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
PREPROCESSOR = "preprocessor_config.json"
BASE = "dphubert."  # before the encoder's tensors in a model that transformers saved with a head
WEIGHT_NORM = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}
"""Ends of names in torch's newer weight norm, which transformers writes -> ours."""
LARGEST_HEADER = 1 << 24  # bytes of the list of tensors in a safetensors file


@dataclass(frozen=True)
class Card:
    """Model card with its pictures.

    Args:
        text: in Markdown, with the metadata of the Hub.
        pictures: file name -> PNG.
    """

    text: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the files into the folder of a model."""
        (folder / CARD).write_text(self.text, encoding="utf8")
        for name, picture in self.pictures.items():
            (folder / name).write_bytes(picture)


def save_model(
    model: SpeechModel, target: str | Path, card: str | Card = "", dtype: torch.dtype | None = None
) -> Path:
    """Write a checkpoint directory; it appears whole or not at all.

    It holds ``config.json``, ``model.safetensors``, a model card, and for transformers
    ``preprocessor_config.json`` and a file of code, which runs only where a user allows it
    (``AutoModel.from_pretrained(target, trust_remote_code=True)``).

    Args:
        model: model to save.
        target: directory that does not exist yet.
        card: model card, in Markdown or with its pictures; a heading by default.
        dtype: type of the stored weights (``torch.float16`` halves the file); unchanged by default.

    Returns:
        ``target``.

    Raises:
        CheckpointError: ``target`` exists or cannot be written.
    """
    target = Path(target)
    shape = model.config
    config = {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION, **shape.to_dict()}
    waveforms = single_file.preprocessor_config(shape.normalize_waveform, shape.normalize_eps, SAMPLE_RATE)
    files = {
        CONFIG: json_text(config | single_file.auto_config()),
        PREPROCESSOR: json_text(waveforms),
        single_file.FILE: single_file.modeling_file(),
    }
    state = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
    write_folder(target, files, state, card)
    return target


def write_folder(target: Path, files: Mapping[str, str], state: State, card: str | Card) -> None:
    """Write a new folder with weights, a card and other files of text, completely or not at all.

    Args:
        target: directory that does not exist yet.
        files: name -> text.
        state: tensors, contiguous on the CPU.
        card: model card, in Markdown or with its pictures; a heading if it is empty.

    Raises:
        CheckpointError: ``target`` exists or cannot be written.
    """
    with new_folder(target) as partial:
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf8")
        try:
            save_file(state, partial / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise CheckpointError(f"{target}: cannot be written ({error})") from error
        (partial / WEIGHTS).chmod((partial / CONFIG).stat().st_mode)  # safetensors writes 0600
        page = card if isinstance(card, Card) else Card(card or f"# {target.name}\n")
        page.write(partial)


def read_tensors(path: Path) -> State:
    """Read a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated, of another format or has too many tensors.
    """
    with reading(path, CheckpointError, "safetensors"):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > LARGEST_HEADER:
                raise ValueError(f"its header has {size:,} bytes, allowed: {LARGEST_HEADER:,}")
            header = parse_json(file.read(size))
        if not isinstance(header, dict) or len(header) > MAX_TENSORS + 1:  # one entry is no tensor
            raise ValueError(f"its header does not name up to {MAX_TENSORS:,} tensors")
        return load_file(path)


def read(folder: Path) -> Weights:
    """Read a directory that :func:`save_model` wrote, or transformers' ``save_pretrained`` later.

    Heads that transformers added are left out.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is newer than this version.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing")
    return read_config(folder), _encoder(read_tensors(folder / WEIGHTS))


def read_config(folder: Path) -> ModelConfig:
    """Read the shape of the model in a directory, without its weights.

    Raises:
        CheckpointError: ``config.json`` is missing or damaged, or the format is newer than this version.
    """
    path = folder / CONFIG
    values = read_json(path, CheckpointError)
    if (kind := values.pop("model_type", None)) != MODEL_TYPE:
        raise CheckpointError(f"{path}: model_type is {shown(kind)}, expected {MODEL_TYPE!r}")
    version = values.pop("format_version", None)
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version is {shown(version)}, this version reads up to {FORMAT_VERSION}"
        )
    with checkpoint_errors(path):
        return ModelConfig.from_dict(_shape(values))


def _shape(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the model's shape; transformers adds many of its own when it saves a model."""
    if "transformers_version" in values:
        names = {field.name for field in fields(ModelConfig)}
        return {name: value for name, value in values.items() if name in names}
    return {name: value for name, value in values.items() if name not in single_file.auto_config()}


def _encoder(state: State) -> State:
    """Return the encoder's tensors by our names."""
    if any(name.startswith(BASE) for name in state):
        state = {name.removeprefix(BASE): t for name, t in state.items() if name.startswith(BASE)}
    for theirs, ours in WEIGHT_NORM.items():
        state = {
            name.removesuffix(theirs) + ours if name.endswith(theirs) else name: t
            for name, t in state.items()
        }
    return state


def json_text(content: Mapping[str, Any]) -> str:
    """Write values as the text of a JSON file."""
    return json.dumps(content, indent=2) + "\n"
