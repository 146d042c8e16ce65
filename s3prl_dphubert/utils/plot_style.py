"""Colours and axes of the plots: few hues with fixed meanings, light lines, no boxes."""

from __future__ import annotations

from matplotlib.axes import Axes

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
