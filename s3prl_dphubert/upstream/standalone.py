"""The upstream of a folder that ``export-hub`` wrote. It runs from there, without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..model import ModelConfig, SpeechModel
from ..model.state_dict import build_model, load_weights_only
from . import expert
from .options import Options

CONFIG, STATE = "config", "state_dict"
TASKS = ("PR", "SID", "ER", "ASR", "ASV", "SD", "QbE", "ST", "SS", "SE", "secret")
"""Keys that the challenge's check of a submission looks up; it finds no hidden states without them."""


class UpstreamExpert(expert.UpstreamExpert):
    """The upstream as s3prl and the SUPERB challenge construct it.

    Args:
        ckpt: ``model.pt`` of the folder.
        model_config: YAML file with options.
        refresh: makes no difference: s3prl has fetched the whole folder before.
        options: options, before those of the file.

    Raises:
        DPHubertError: the file cannot be loaded, or an option is wrong.
    """

    def __init__(
        self, ckpt: str | Path, model_config: str | Path | None = None, refresh: bool = False, **options: Any
    ) -> None:
        checked = Options.read(model_config, options)
        super().__init__(read(Path(ckpt)), checked)

    def forward(self, wavs: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """As every upstream here; besides, each of :data:`TASKS` names the list of all hidden states."""
        result = super().forward(wavs)
        return result | dict.fromkeys(TASKS, result["hidden_states"])


def write(model: SpeechModel, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write a ``model.pt``: plain values and tensors, so that ``weights_only`` loads it.

    Args:
        model: what to write.
        path: file to write to.
        dtype: store weights in that type.

    Raises:
        CheckpointError: the file cannot be written.
    """
    config = {name: _plain(value) for name, value in model.config.to_dict().items()}
    state = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
    try:
        torch.save({CONFIG: config, STATE: state}, path)
    except RuntimeError as error:  # what torch makes of a full disk
        raise CheckpointError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from error


def read(path: Path) -> SpeechModel:
    """Read a ``model.pt`` that :func:`write` wrote, in float32 and eval mode.

    Raises:
        CheckpointError: it is missing, damaged, something else, or does not fit its own configuration.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    content = load_weights_only(path)
    if not isinstance(content, dict) or set(content) != {CONFIG, STATE}:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: holds {found or 'nothing'}, allowed: {CONFIG} and {STATE}")
    values, state = content[CONFIG], content[STATE]
    for name, mapping in content.items():
        if not isinstance(mapping, dict):
            raise CheckpointError(f"{path}: {name} is {type(mapping).__name__}, allowed: a mapping")
    other = [str(name) for name, tensor in state.items() if not isinstance(tensor, Tensor)]
    if other:
        raise CheckpointError(f"{path}: {STATE} has {', '.join(other[:5])}, allowed: tensors")
    try:
        config = ModelConfig.from_dict(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return build_model(config, state, path)


def _plain(value: Any) -> Any:
    """Lists for tuples, also inside."""
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
