"""Options of an upstream, from ``-g config.yaml`` or keywords."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, shown
from ..model.speech_model import PRECISIONS
from ..utils.config_io import LARGEST_YAML, from_dict, parse_yaml
from ..utils.files import read_limited

PADDINGS = ("batch", "exact")
Kind = TypeVar("Kind", bound="Options")


@dataclass(frozen=True)
class Options:
    """Options of every upstream.

    Args:
        precision: type of the matrix products and convolutions (autocast); hidden states are always
            float32.
        padding: ``batch`` runs all utterances together, padded to the longest, as the published
            models were trained and evaluated. GroupNorm's statistics then include the padding, which
            changes valid frames by 1 to 3 %. ``exact`` gives every utterance the hidden states that
            it has alone, at the cost of one run for each length in the batch.

    Raises:
        ConfigError: naming every field that is wrong.
    """

    precision: str = "fp32"
    padding: str = "batch"

    def __post_init__(self) -> None:
        ConfigError.raise_for("upstream options", self.faults())

    def faults(self) -> Iterator[str]:
        """Yield the faults, field by field."""
        choices = ("precision", self.precision, PRECISIONS), ("padding", self.padding, PADDINGS)
        for name, value, allowed in choices:
            if value not in allowed:
                yield f"{name} is {shown(value)}, allowed: {', '.join(allowed)}"

    @classmethod
    def read(cls: type[Kind], config: str | Path | None, more: Mapping[str, Any]) -> Kind:
        """Read options from a YAML file, and override them by others.

        Args:
            config: YAML file that holds a mapping, or ``None``.
            more: options that override those of the file.

        Raises:
            ConfigError: the file cannot be read or is not a mapping, or an option is unknown or wrong.
        """
        values = {**(_mapping(Path(config)) if config else {}), **more}
        return from_dict(cls, values, "upstream options")


def _mapping(path: Path) -> dict[str, Any]:
    try:
        values = parse_yaml(read_limited(path, LARGEST_YAML))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({error})") from error
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: holds {type(values).__name__}, expected options as name: value")
    return {str(name): value for name, value in (values or {}).items()}
