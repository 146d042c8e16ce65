import math

import numpy as np
import pytest
from matplotlib.image import imread

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.report import forest_plot as module
from s3prl_dphubert.superb.report.forest_plot import STYLES, ForestRow, forest_plot
from s3prl_dphubert.superb.scoring.uncertainty import Estimate

ROWS = [
    ForestRow("words", "best layer", Estimate(3.8, 0.8, 2.3, 5.7)),
    ForestRow("words", "layer weights", Estimate(1.1, 0.6, -0.1, 2.4)),
    ForestRow("phones", "best layer", Estimate(-2.0, 0.4, -2.9, -1.1)),
    ForestRow("phones", "layer weights", Estimate(0.4, 0.3, -0.2, 1.0)),
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    drawn = []
    plain = module.Figure

    def figure(*arguments, **options):
        drawn.append(plain(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(module, "Figure", figure)
    return drawn


def test_points_intervals_and_conclusions_are_drawn(tmp_path, figures):
    forest_plot(ROWS, tmp_path / "forest.png", "Differences", ("DistilHuBERT better", "DPHuBERT better"))
    (axes,) = figures[0].axes
    marks = [
        (line.get_xdata()[0], line.get_marker(), line.get_color())
        for line in axes.lines
        if line.get_marker() != "None"
    ]
    expected = [
        (row.estimate.value, STYLES[row.estimate.conclusion][1], STYLES[row.estimate.conclusion][0])
        for row in ROWS
    ]
    assert marks == expected
    spans = [tuple(line.get_xdata()) for line in axes.lines if len(set(line.get_xdata())) == 2]
    assert [(row.estimate.low, row.estimate.high) for row in ROWS] == [
        span for span in spans if span != (0, 1)
    ]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["words", "phones", *(row.label for row in ROWS)]
    places = axes.get_yticks()
    assert places[0] < places[2] < places[3] < places[1] < places[4]
    assert "+3.8 [+2.3, +5.7]" in [text.get_text() for text in axes.texts]
    assert 0 in [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]


def test_conclusions_can_be_told_without_colour(tmp_path):
    assert len({(marker, filling == "white") for _, marker, filling in STYLES.values()}) == 3
    rendered = []
    for row in ROWS[:3]:
        forest_plot([ForestRow("x", "x", row.estimate)], tmp_path / "one.png")
        rendered.append(imread(tmp_path / "one.png")[..., :3].mean(-1))
    assert min(image.min() for image in rendered) < 0.5 and max(image.max() for image in rendered) == 1
    assert np.abs(rendered[0] - rendered[1]).max() > 0.3


def test_endless_intervals_run_to_the_edges(tmp_path, figures):
    forest_plot(
        [ForestRow("x", "one voice", Estimate(2.0, math.inf, -math.inf, math.inf))], tmp_path / "a.png"
    )
    (axes,) = figures[0].axes
    low, high = axes.get_xlim()
    assert (low, high) in [tuple(line.get_xdata()) for line in axes.lines]


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ResultError, match="0 rows, allowed: one or more"):
        forest_plot([], tmp_path / "a.png")
    with pytest.raises(ResultError, match="finite difference"):
        forest_plot([ForestRow("x", "y", Estimate(math.nan, 1, 0, 1))], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
