"""What a model's units cost in time on one machine: a table that was measured there, and its sum.

Like :mod:`.cost` for MACs: widths may be numbers or tensors, so that the same formula tells the time of a
model as it is and the differentiable one of a student under its gates.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..model.cost import Number, Widths, real_widths
from ..model.model_config import ModelConfig
from ..utils.files import write_text

SHAPE = ("conv_kernels", "conv_strides", "embed_dim", "head_dim", "pos_conv_kernel", "num_buckets")
"""What has to be alike in the model that was measured and in the one that is counted."""


@dataclass(frozen=True)
class LatencyLine:
    """Seconds that grow with a number of units: ``fixed + each * units``."""

    fixed: float
    each: float

    def __call__(self, units: Number) -> Number:
        """Seconds of so many units."""
        return self.fixed + self.each * units


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of a model's parts for one utterance.

    Args:
        seconds: length of the utterance.
        shape: values of :data:`SHAPE` in the model that was measured.
        conv: of each conv layer, by inputs times outputs.
        projection: by channels.
        positions: of the positional block.
        rest: of each Transformer layer outside its sublayers.
        attention: of each layer's attention, by heads.
        feed_forward: of each layer's feed-forward, by units.
        machine: where that was measured, for people to read.
    """

    seconds: float
    shape: dict[str, Any]
    conv: tuple[LatencyLine, ...]
    projection: LatencyLine
    positions: float
    rest: tuple[float, ...]
    attention: tuple[LatencyLine, ...]
    feed_forward: tuple[LatencyLine, ...]
    machine: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> LatencyTable:
        """Read a table that ``bench --table`` wrote.

        Raises:
            ConfigError: the file is missing or no such table.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf8"))
            lines: dict[str, Any] = {
                name: tuple(LatencyLine(**row) for row in values.pop(name)) for name in ("conv", *_SUBLAYERS)
            }
            projection, rest = LatencyLine(**values.pop("projection")), tuple(values.pop("rest"))
            table = cls(**values, **lines, projection=projection, rest=rest)
            numbers = [n for name in lines for line in lines[name] for n in (line.fixed, line.each)]
            numbers += [projection.fixed, projection.each, table.seconds, table.positions, *rest]
            if not all(math.isfinite(number) and number >= 0 for number in numbers):
                raise ValueError("a cost is negative or not finite")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"budget: table {path} is no table of `bench --table` ({error})") from error
        return table

    def write(self, path: str | Path) -> None:
        """Write as JSON."""
        write_text(Path(path), json.dumps(asdict(self), indent=1) + "\n")

    def check(self, config: ModelConfig) -> None:
        """Refuse a model of another shape.

        Raises:
            ConfigError: naming every field that differs.
        """
        own = shape_of(config)
        faults = [
            f"table is for {name} {self.shape.get(name)}, the model has {own[name]}"
            for name in SHAPE
            if self.shape.get(name) != own[name]
        ]
        if config.num_layers > len(self.rest):
            faults.append(f"table is for {len(self.rest)} layers, the model has {config.num_layers}")
        ConfigError.raise_for("budget", faults)


_SUBLAYERS = ("attention", "feed_forward")


def shape_of(config: ModelConfig) -> dict[str, Any]:
    """The values of :data:`SHAPE`, as JSON has them."""
    values = {name: getattr(config, name) for name in SHAPE}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@lru_cache(maxsize=8)
def read_table(path: str) -> LatencyTable:
    """A table, read once."""
    return LatencyTable.read(path)


def latency(config: ModelConfig, table: LatencyTable, widths: Widths | None = None) -> Number:
    """Seconds of one utterance.

    Args:
        config: the shape before the gates.
        table: where.
        widths: open units; ``None`` counts the model as it stands.

    Raises:
        ConfigError: the table is for another shape.
    """
    table.check(config)
    w = widths or real_widths(config)
    total: Number = table.positions
    before: Number = 1
    for line, channels in zip(table.conv, w.conv, strict=True):
        total = total + line(before * channels)
        before = channels
    total = total + table.projection(before)
    for i in range(config.num_layers):
        attention = table.attention[i](w.heads[i]) * w.any_head[i] * w.attention[i]
        total = total + table.rest[i] + attention + table.feed_forward[i](w.ffn[i]) * w.feed_forward[i]
    return total
