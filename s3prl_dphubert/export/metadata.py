"""Metadata of exported files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..constants import SAMPLE_RATE
from ..errors import CheckpointError
from ..model import ModelConfig
from ..model.model_config import with_later_fields
from ..utils.config_io import from_dict
from ..utils.readers import parse_json

FORMAT_VERSION = 3
LARGEST = 1 << 20  # characters of metadata; models of 48 layers need some 20,000
# Packages whose versions are recorded.
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class ExportMetadata:
    """Metadata of an exported file.

    Args:
        config: shape of the encoder; stride, receptive field and normalisation follow from it.
        layers: indices of the hidden states that the file returns, 0 for the feature projection's output.
        precision: ``fp32``, ``bf16`` or ``int8``.
        rest: precision of the products that are not in 8 bits: ``fp32`` or ``bf16``.
        int8: places of the graph whose products take 8 bits.
        checkpoint: source of the weights.
        weights: SHA-256 of all weights.
        versions: package -> version that made the file.
    """

    config: ModelConfig
    layers: tuple[int, ...]
    precision: str
    rest: str
    int8: tuple[str, ...]
    checkpoint: str
    weights: str
    versions: dict[str, str]

    def to_json(self) -> str:
        """Return the metadata as JSON; :meth:`from_json` reads it."""
        facts = {
            "format_version": FORMAT_VERSION,
            "stride": self.config.stride,
            "sample_rate": SAMPLE_RATE,
            "normalize_waveform": self.config.normalize_waveform,
            "normalize_eps": self.config.normalize_eps,
        }
        return json.dumps(facts | asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> ExportMetadata:
        """Inverse of :meth:`to_json`.

        Raises:
            CheckpointError: the text is missing, damaged, or of a newer version.
        """
        if text is None:
            raise CheckpointError(f"{path}: not written by `s3prl-dphubert export`")
        try:
            if len(text) > LARGEST:
                raise ValueError(f"{len(text):,} characters, allowed: {LARGEST:,}")
            values: dict[str, Any] = parse_json(text)
            version = values["format_version"]
            if version != FORMAT_VERSION:
                raise CheckpointError(
                    f"{path}: format_version is {version!r}, allowed: {FORMAT_VERSION}; "
                    "export the model again"
                )
            own = {field.name: values[field.name] for field in fields(cls)}
            own["config"] = with_later_fields(own["config"])
            return from_dict(cls, own, "metadata", complete=True, strict=True)
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise CheckpointError(f"{path}: its metadata is damaged ({reason})") from error
