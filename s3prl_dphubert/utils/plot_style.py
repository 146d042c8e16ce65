"""Colours, axes and files of the plots: few hues with fixed meanings, light lines, no boxes."""

from __future__ import annotations

import io

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT, LINES = "#3c4650", "#8a949e", "#e6eaee"
BEFORE, AFTER, CHECK = "#c9d3dd", "#1f6f8b", "#d1495b"
"""The teacher, or the raw measurement; the result; what it is compared with."""
COUNTS = (AFTER, "#e0a030", "#7d5ba6")
"""Several quantities in one panel."""


def dress(axes: Axes, title: str, grid: str = "y") -> None:
    """Give a panel its title, light grid lines behind the data, and no frame.

    Args:
        axes: the panel.
        title: left above it.
        grid: direction of the grid lines, as :meth:`matplotlib.axes.Axes.grid` takes it.
    """
    axes.set_title(title, loc="left", weight="bold", color=INK, fontsize=11)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINES)
    axes.tick_params(left=False, colors=INK, labelsize=9)
    axes.grid(axis=grid, color=LINES, linewidth=0.9)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def literal(text: str) -> str:
    """Return a text that is drawn as it is, with dollars, between which matplotlib reads formulas."""
    return text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file, the same one each time, whose texts are texts rather than shapes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "s3prl-dphubert"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()
