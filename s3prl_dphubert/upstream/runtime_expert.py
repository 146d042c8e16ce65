"""An upstream whose model is a file for ONNX Runtime or OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..export.runtime import load_exported
from .expert import UpstreamExpert
from .options import Options


class CompiledExpert(UpstreamExpert):
    """As every upstream here, on the CPU and without gradients.

    ``padding`` means what it means for a checkpoint: ``batch`` masks the frames behind each utterance's
    end but counts the padding in GroupNorm's statistics, ``exact`` runs the utterances of each length by
    themselves. If the file holds only some hidden states, the upstream's list is those.

    Args:
        path: the file.
        model_config: YAML file with options.
        options: options, before those of the file; ``precision`` is the exported file's own.

    Raises:
        DPHubertError: the file cannot be loaded, its runtime is missing, or an option is wrong.
    """

    def __init__(self, path: Path, model_config: str | Path | None, options: dict[str, Any]) -> None:
        checked = Options.read(model_config, options)
        if checked.precision != Options.precision:
            raise ConfigError(
                f"precision is {checked.precision!r}, allowed for {path.suffix} files: none, "
                "they were exported in one"
            )
        super().__init__(load_exported(path), checked)  # type: ignore[arg-type]  # it acts as a model

    def _extract(self, waveforms: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        return self.model.extract_features(waveforms, lengths)[0]
