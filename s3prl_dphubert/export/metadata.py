"""What an exported file says of itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..constants import SAMPLE_RATE
from ..errors import CheckpointError, ConfigError
from ..model import ModelConfig, SpeechModel
from ..utils import environment

FORMAT_VERSION = 1
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Info:
    """Metadata of an exported file.

    Args:
        config: the encoder's shape; stride, receptive field and normalisation follow from it.
        layers: numbers of the hidden states that the file returns, 0 for the feature projection's.
        precision: ``fp32``, ``bf16`` or ``int8``.
        int8: places whose products take 8 bits.
        checkpoint: where the weights came from.
        weights: SHA-256 of all weights.
        versions: of the packages that made the file.
    """

    config: ModelConfig
    layers: tuple[int, ...]
    precision: str
    int8: tuple[str, ...]
    checkpoint: str
    weights: str
    versions: dict[str, str]

    def to_json(self) -> str:
        """One text; :meth:`from_json` reads it."""
        facts = {
            "format_version": FORMAT_VERSION,
            "stride": self.config.stride,
            "sample_rate": SAMPLE_RATE,
            "normalize_waveform": self.config.normalize_waveform,
        }
        return json.dumps(facts | asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> Info:
        """Inverse of :meth:`to_json`.

        Raises:
            CheckpointError: there is none, it is damaged, or of a newer version.
        """
        if text is None:
            raise CheckpointError(f"{path}: no file that `s3prl-dphubert export` wrote")
        try:
            values: dict[str, Any] = json.loads(text)
            version = values["format_version"]
            if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
                raise CheckpointError(
                    f"{path}: format_version is {version!r}, this version reads up to {FORMAT_VERSION}"
                )
            return cls(
                config=ModelConfig.from_dict(values["config"]),
                layers=tuple(values["layers"]),
                int8=tuple(values["int8"]),
                **{name: values[name] for name in ("precision", "checkpoint", "weights", "versions")},
            )
        except (json.JSONDecodeError, KeyError, TypeError, ConfigError) as error:
            raise CheckpointError(f"{path}: its metadata is damaged ({error!r})") from error


def weights_hash(model: SpeechModel) -> str:
    """SHA-256 of names and numbers of all weights, whatever file they came in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of this package and of those that export with it, where they are installed."""
    return environment.versions(PACKAGES)
