"""Latency of a model from a table of its units' costs, measured on one machine.

Widths may be numbers or tensors, as for the MACs of :mod:`s3prl_dphubert.model.cost`: the same formula gives
the latency of a model, and the differentiable one of a student under its gates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..model.cost import Number, Widths, real_widths
from ..model.model_config import ModelConfig
from ..utils.config_io import from_dict
from ..utils.files import write_text
from ..utils.readers import read_json

_LARGEST = 16 << 20  # bytes of a table
SHAPE = ("conv_kernels", "conv_strides", "embed_dim", "head_dim", "pos_conv_kernel", "num_buckets")
"""Fields in which a model has to equal the one that was measured."""


@dataclass(frozen=True)
class LatencyLine:
    """Seconds as a linear function of a number of units: ``fixed + each * units``."""

    fixed: float
    each: float

    def __post_init__(self) -> None:
        ConfigError.raise_for("line", _cost_faults({"fixed": self.fixed, "each": self.each}))

    def __call__(self, units: Number) -> Number:
        """Return the seconds of that many units."""
        return self.fixed + self.each * units


@dataclass(frozen=True)
class LatencyTable:
    """Seconds that the parts of a model take for one utterance.

    Args:
        seconds: length of the utterance.
        shape: values of :data:`SHAPE` in the model that was measured.
        conv: cost of each conv layer, by inputs times outputs.
        projection: cost of the feature projection, by channels.
        positions: cost of the positional convolution.
        rest: cost of each Transformer layer outside its sublayers.
        attention: cost of each layer's attention, by heads.
        feed_forward: cost of each layer's feed-forward sublayer, by units.
        machine: description of the machine, for readers.

    Raises:
        ConfigError: a cost is negative or not finite.
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

    def __post_init__(self) -> None:
        costs = {"seconds": self.seconds, "positions": self.positions}
        costs |= {f"rest[{i}]": seconds for i, seconds in enumerate(self.rest)}
        ConfigError.raise_for("latency table", _cost_faults(costs))

    @classmethod
    def read(cls, path: str | Path) -> LatencyTable:
        """Read a table that ``bench --table`` wrote.

        Raises:
            ConfigError: the file is missing, or is no such table; all faults are listed.
        """
        what = f"budget: table {path} is no table of `bench --table`"
        values = read_json(Path(path), ConfigError, source=what, largest=_LARGEST)
        return from_dict(cls, values, what, complete=True, strict=True)

    def write(self, path: str | Path) -> None:
        """Write the table as JSON."""
        write_text(Path(path), json.dumps(asdict(self), indent=1) + "\n")

    def check(self, config: ModelConfig) -> None:
        """Refuse a model that the table does not describe.

        Raises:
            ConfigError: listing every field that differs.
        """
        shape = shape_of(config)
        faults = [
            f"table is for {name} {self.shape.get(name)}, the model has {shape[name]}"
            for name in SHAPE
            if self.shape.get(name) != shape[name]
        ]
        if config.num_layers > len(self.rest):
            faults.append(f"table is for {len(self.rest)} layers, the model has {config.num_layers}")
        if config.adapter_dim:
            faults.append(f"adapter_dim is {config.adapter_dim}, allowed: 0, as tables time no adapters")
        ConfigError.raise_for("budget", faults)


def _cost_faults(costs: dict[str, float]) -> Iterable[str]:
    for name, seconds in costs.items():
        if not (math.isfinite(seconds) and seconds >= 0):
            yield f"{name} is {seconds}, allowed: finite and 0 or more"


def shape_of(config: ModelConfig) -> dict[str, Any]:
    """Return the values of :data:`SHAPE`, as JSON has them."""
    values = {name: getattr(config, name) for name in SHAPE}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@cache
def read_table(path: str) -> LatencyTable:
    """Read a table; its file is read once per process."""
    return LatencyTable.read(path)


def latency(config: ModelConfig, table: LatencyTable, widths: Widths | None = None) -> Number:
    """Return the seconds that one utterance takes.

    Args:
        config: shape before pruning.
        table: costs on the machine.
        widths: open units, as numbers or tensors; all units by default.

    Raises:
        ConfigError: the table is for another shape.
    """
    table.check(config)
    w = widths or real_widths(config)
    total: Number = table.positions
    inputs: Number = 1
    for line, channels in zip(table.conv, w.conv, strict=True):
        total = total + line(inputs * channels)
        inputs = channels
    total = total + table.projection(inputs)
    expected = isinstance(w.ffn, Tensor)  # where hundreds of gates are never all closed
    for i in range(config.num_layers):
        feed_forward = w.feed_forward[i] if expected else w.feed_forward[i] * int(w.ffn[i] > 0)
        attention = table.attention[i](w.heads[i]) * w.any_head[i] * w.attention[i]
        total = total + table.rest[i] + attention + table.feed_forward[i](w.ffn[i]) * feed_forward
    return total
