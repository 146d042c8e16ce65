"""Picture of the units that a model has in each layer, beside those of its teacher."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..model import ModelConfig
from ..utils.plot_style import AFTER, BEFORE, INK, dress

EMPTY = {None: "none", 0: "bias"}  # a sublayer that is gone, and one of which its output bias is left


def units_figure(config: ModelConfig, teacher: ModelConfig | None = None) -> Figure:
    """Draw the conv channels, attention heads and feed-forward units of each layer as bars.

    Args:
        config: shape of the model.
        teacher: shape of the model that it was made from. Without it the bars behind are the heads that each
            layer once had and, of channels and feed-forward units, the most that a layer has.
    """
    full = teacher or config
    most_units = max(1, *(width or 0 for width in full.ffn))  # a pruned model may have none
    heads = [None if ids is None else len(ids) for ids in config.heads]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    conv, attention, ffn = figure.subplots(1, 3)
    _draw(conv, "conv channels", config.conv_channels, max(full.conv_channels), len(full.conv_channels))
    _draw(attention, "attention heads", heads, full.total_heads, full.num_layers)
    _draw(ffn, "feed-forward units", config.ffn, most_units, full.num_layers)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()


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
