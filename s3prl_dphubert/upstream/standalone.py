"""The upstream of a folder that ``export-hub`` wrote, where copies of this module and its imports run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..model import ModelConfig, SpeechModel
from ..model.state_dict import build_model, checkpoint_errors, load_weights_only
from .expert import UpstreamExpert
from .options import Options

CONFIG, STATE = "config", "state_dict"
TASKS = ("PR", "SID", "ER", "ASR", "ASV", "SD", "QbE", "ST", "SS", "SE", "secret")
"""Keys under which the challenge's check of a submission looks up the hidden states."""


class StandaloneExpert(UpstreamExpert):
    """An upstream with the constructor that s3prl and the SUPERB challenge call.

    Args:
        ckpt: ``model.pt`` of the folder.
        model_config: YAML file with options.
        refresh: ignored, since s3prl has downloaded the whole folder before.
        options: options that override those of the file.

    Raises:
        DPHubertError: the file cannot be loaded, or an option is wrong.
    """

    def __init__(
        self, ckpt: str | Path, model_config: str | Path | None = None, refresh: bool = False, **options: Any
    ) -> None:
        checked = Options.read(model_config, options)
        super().__init__(read(Path(ckpt)), checked)

    def forward(self, wavs: list[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Compute hidden states, and name their list by each of :data:`TASKS` too."""
        result = super().forward(wavs)
        return result | dict.fromkeys(TASKS, result["hidden_states"])


def write(model: SpeechModel, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write a ``model.pt`` of plain values and tensors, which ``torch.load(weights_only=True)`` reads.

    Args:
        model: model to write.
        path: file to write to.
        dtype: type of the stored weights; unchanged by default.

    Raises:
        CheckpointError: the file cannot be written.
    """
    config = {name: _plain(value) for name, value in model.config.to_dict().items()}
    state = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
    try:
        torch.save({CONFIG: config, STATE: state}, path)
    except RuntimeError as error:  # torch's error on a full disk
        raise CheckpointError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from error


def read(path: Path) -> SpeechModel:
    """Load a ``model.pt`` that :func:`write` wrote, in float32 and eval mode.

    Raises:
        CheckpointError: the file is missing, damaged or of another format, or its tensors do not fit its
            configuration.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    content = load_weights_only(path)
    if not isinstance(content, dict) or set(content) != {CONFIG, STATE}:
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: holds {keys or 'nothing'}, expected {CONFIG} and {STATE}")
    values, state = content[CONFIG], content[STATE]
    for name, mapping in content.items():
        if not isinstance(mapping, dict):
            raise CheckpointError(f"{path}: {name} is {type(mapping).__name__}, expected a mapping")
    with checkpoint_errors(path):
        config = ModelConfig.from_dict(values)
    return build_model(config, state, path)


def _plain(value: Any) -> Any:
    """Turn tuples into lists, nested ones too."""
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
