"""Picture of the units that a model has in each layer, beside those of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..model import ModelConfig
from ..utils.plot_style import AFTER, BEFORE, INK, dress

EMPTY = {None: "none", 0: "bias"}  # a sublayer that is gone, and one of which its output bias is left


@dataclass(frozen=True)
class UnitCounts:
    """Numbers of units in each layer of a model.

    Args:
        conv: channels of each conv layer.
        heads: of each Transformer layer; 0 leaves only the output bias, ``None`` no attention.
        ffn: inner units of each layer's feed-forward, likewise.
        total_heads: heads that a layer had before any pruning.
    """

    conv: tuple[int, ...]
    heads: tuple[int | None, ...]
    ffn: tuple[int | None, ...]
    total_heads: int

    @classmethod
    def of(cls, config: ModelConfig) -> UnitCounts:
        """Return the numbers of a shape."""
        heads = tuple(None if ids is None else len(ids) for ids in config.heads)
        return cls(config.conv_channels, heads, config.ffn, config.total_heads)


def units_figure(model: UnitCounts, teacher: UnitCounts | None = None) -> Figure:
    """Draw the conv channels, attention heads and feed-forward units of each layer as bars.

    Args:
        model: units of the model.
        teacher: units of the model that it was made from. Without it the bars behind are the heads that each
            layer once had and, of channels and feed-forward units, the most that a layer has.
    """
    full = teacher or model
    layers = len(full.heads)
    most_units = max(1, *(width or 0 for width in full.ffn))  # a pruned model may have none
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    conv, attention, ffn = figure.subplots(1, 3)
    _draw(conv, "conv channels", model.conv, max(full.conv), len(full.conv))
    _draw(attention, "attention heads", model.heads, full.total_heads, layers)
    _draw(ffn, "feed-forward units", model.ffn, most_units, layers)
    return figure


def _draw(axis: Axes, title: str, counts: Sequence[int | None], most: int, layers: int) -> None:
    """Draw one bar a layer, with its count above it, in front of bars of ``most``."""
    axis.bar(range(1, layers + 1), [most] * layers, color=BEFORE)
    places = range(1, len(counts) + 1)
    axis.bar(places, [count or 0 for count in counts], color=AFTER)
    rotation = 90 if layers > 12 else 0
    for place, count in zip(places, counts, strict=True):
        label = EMPTY.get(count, f"{count}")
        axis.text(
            place, count or 0, label, ha="center", va="bottom", fontsize=8, color=INK, rotation=rotation
        )
    total, whole = sum(count or 0 for count in counts), most * layers
    ticks = range(1, layers + 1, 1 if layers <= 12 else 4)
    axis.set(xlabel="layer", xticks=ticks, yticks=[], ylim=(0, most * 1.12))
    dress(axis, f"{title}: {total:,} of {whole:,} ({100 * total / whole:.0f} %)")
