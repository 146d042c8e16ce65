"""Draw how a model is compressed, as method-light.svg and method-dark.svg: ``python docs/images/draw.py``."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

THEMES = {
    "light": {
        "ink": "#24313b",
        "soft": "#5d6b76",
        "teacher": "#8a97a2",
        "open": "#1f6f8b",
        "closed": "#d5dbe0",
    },
    "dark": {
        "ink": "#e6edf2",
        "soft": "#9fb0bc",
        "teacher": "#78858f",
        "open": "#5fb3cf",
        "closed": "#3a454e",
    },
}
LAYERS = 6
CLOSED = {0: {1, 4}, 1: {0, 3, 5}, 2: {2, 3, 5}, 3: {0, 1, 4, 5}, 4: {1, 2, 4}, 5: {0, 2, 3, 5}}
"""Layer -> units whose gates are closed, among six."""


def stack(axes, left, units, colour, closed="", gates=None):
    """Draw a model as layers of units, from bottom to top.

    Args:
        axes: where to draw.
        left: left edge of the stack.
        units: number of units of each layer.
        colour: of a unit.
        closed: colour of a unit with a closed gate.
        gates: layer -> units that are closed.
    """
    widest = 6
    for layer, count in enumerate(units):
        start = left + (widest - count) * 0.34 / 2
        for unit in range(count):
            shut = unit in (gates or {}).get(layer, ())
            axes.add_patch(
                FancyBboxPatch(
                    (start + unit * 0.34, 1.0 + layer * 0.42),
                    0.24,
                    0.26,
                    boxstyle="round,pad=0,rounding_size=0.06",
                    facecolor=closed if shut else colour,
                    edgecolor="none",
                )
            )


def arrow(axes, start, end, colour, style="-|>", curve=0.0, dashed=False):
    """Draw an arrow between two points."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=style,
            mutation_scale=13,
            connectionstyle=f"arc3,rad={curve}",
            color=colour,
            linewidth=1.6,
            linestyle=(0, (3, 2)) if dashed else "-",
            shrinkA=0,
            shrinkB=0,
        )
    )


def draw(theme):
    """Return the figure in one of the themes."""
    c = THEMES[theme]
    figure = Figure(figsize=(10.4, 4.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 13.2), ylim=(-0.15, 5.05))
    axes.set_axis_off()
    full, small = [6] * LAYERS, [6 - len(CLOSED[layer]) for layer in range(LAYERS)]
    middle = 1.0 + (LAYERS - 1) * 0.42 / 2 + 0.13

    places = {"teacher": 0.45, "student": 4.05, "pruned": 7.65, "result": 11.0}
    stack(axes, places["teacher"], full, c["teacher"])
    stack(axes, places["student"], full, c["open"], c["closed"], CLOSED)
    stack(axes, places["pruned"], small, c["open"])
    stack(axes, places["result"], small, c["open"])

    for name, title, below in (
        ("teacher", "Teacher", "frozen"),
        ("student", "Gated student", "starts as a copy of the teacher"),
        ("pruned", "Pruned model", "closed units are gone"),
        ("result", "Small model", "same shape, better weights"),
    ):
        centre = places[name] + 0.97
        axes.text(centre, 3.78, title, ha="center", va="bottom", color=c["ink"], fontsize=13, weight="bold")
        axes.text(centre, 0.72, below, ha="center", va="top", color=c["soft"], fontsize=9.5)

    for left, right, title, below in (
        (2.6, 3.9, "distil", "+ prune"),
        (6.2, 7.5, "cut", ""),
        (9.75, 11.05, "distil", "again"),
    ):
        arrow(axes, (left, middle), (right, middle), c["ink"])
        axes.text(
            (left + right) / 2, middle + 0.12, title, ha="center", va="bottom", color=c["ink"], fontsize=11
        )
        axes.text(
            (left + right) / 2, middle - 0.14, below, ha="center", va="top", color=c["ink"], fontsize=11
        )

    arrow(axes, (1.42, 4.3), (11.97, 4.3), c["soft"], curve=-0.07, dashed=True)
    axes.text(
        6.7, 4.76, "hidden states of the teacher", ha="center", va="bottom", color=c["soft"], fontsize=9.5
    )

    for left, right, title in ((0.45, 5.99, "stage 1"), (7.65, 12.94, "stage 2")):
        axes.plot([left, left, right, right], [0.25, 0.15, 0.15, 0.25], color=c["soft"], linewidth=1.2)
        axes.text((left + right) / 2, 0.08, title, ha="center", va="top", color=c["soft"], fontsize=10.5)
    return figure


if __name__ == "__main__":
    matplotlib.rcParams["svg.hashsalt"] = "s3prl-dphubert"  # the same file each time
    for theme in THEMES:
        target = Path(__file__).with_name(f"method-{theme}.svg")
        draw(theme).savefig(target, transparent=True, metadata={"Date": None})
