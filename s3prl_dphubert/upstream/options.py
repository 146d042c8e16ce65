"""Options of an upstream, from ``-g config.yaml`` or keywords."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, shown
from ..model.inference.precision_choice import AUTO
from ..model.speech_model import PRECISIONS
from ..utils.config_io import from_dict
from ..utils.readers import LARGEST_YAML, parse_yaml, read_limited, reading

PADDINGS = ("batch", "exact")
Kind = TypeVar("Kind", bound="Options")


@dataclass(frozen=True)
class Options:
    """Options of every upstream.

    Args:
        precision: type of the matrix products and convolutions (autocast): ``fp32``, ``bf16``, ``fp16``, or
            ``auto``: the faster of fp32 and bf16 (fp16 on a GPU), which is measured once per machine, while
            the model is frozen, and fp32 from the first step of its training on. Hidden states are always
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
        choices = ("precision", self.precision, (*PRECISIONS, AUTO)), ("padding", self.padding, PADDINGS)
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
        values = {**cls.defaults(), **(read_options(Path(config)) if config else {}), **more}
        return from_dict(cls, values, "upstream options")

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return options that hold where nothing else is asked for, beside the defaults of the fields."""
        return {}


def read_options(path: Path) -> dict[str, Any]:
    """Read the options in a YAML file, unchecked.

    Raises:
        ConfigError: the file cannot be read or is not a mapping.
    """
    with reading(path, ConfigError, "YAML"):
        values = parse_yaml(read_limited(path, LARGEST_YAML))
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: holds {type(values).__name__}, expected options as name: value")
    return {str(name): value for name, value in (values or {}).items()}
