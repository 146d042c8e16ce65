"""Plots of a run: drawn from what there is, whole logs or parts of them."""

from __future__ import annotations

import json

import matplotlib.image
import numpy as np
import pytest

from s3prl_dphubert.compression.run_plots import _headline, _smooth, plot_training, plot_units, read_log
from tests.helpers.models import tiny


def write_log(folder, rows):
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def rows(count, **more):
    return [{"update": n, "distillation": 1 / n, **more} for n in range(1, count + 1)]


@pytest.mark.parametrize("stages", [("stage1", "stage2"), ("stage1",), ("stage2",), ()])
@pytest.mark.parametrize("count", [1, 2, 200])
def test_curves_of_any_length_are_drawn(tmp_path, stages, count):
    sparsity = {"sparsity": 0.5, "target_sparsity": 0.6}
    for stage in stages:
        write_log(tmp_path / stage, [*rows(count, **sparsity), {"update": count, "valid_loss": 0.3}])
    plot_training(tmp_path, tmp_path / "x.png")
    picture = matplotlib.image.imread(tmp_path / "x.png")
    assert picture.shape[1] == 1080
    assert picture[..., :3].min() < 0.5  # something is drawn


def test_several_budgets_have_colours_of_their_own(tmp_path):
    names = ("sparsity_parameters", "sparsity_superb_macs")
    more = {f"{kind}{name}": 0.5 for name in names for kind in ("", "target_")}
    write_log(tmp_path / "stage1", rows(5, **more))
    plot_training(tmp_path, tmp_path / "x.png")
    picture = (255 * matplotlib.image.imread(tmp_path / "x.png")).round().astype(int)
    for colour in ((0x1F, 0x6F, 0x8B), (0xE0, 0xA0, 0x30)):
        assert (picture[..., :3] == colour).all(-1).sum() > 50


def test_smoothing_keeps_length_and_mean():
    values = np.random.default_rng(0).normal(size=400)
    smooth = _smooth(values)
    assert len(smooth) == 400
    assert abs(smooth.mean() - values.mean()) < 0.02
    assert smooth.std() < 0.5 * values.std()
    assert _smooth(np.array([3.0])).tolist() == [3.0]


def test_the_headline_says_what_became_of_the_teacher(tmp_path):
    assert _headline(tmp_path / "first") == "first"
    (tmp_path / "first").mkdir()
    results = {"teacher": {"parameters": 94_371_712}, "model": {"parameters": 23_592_928}}
    (tmp_path / "first" / "results.json").write_text(json.dumps(results))
    assert _headline(tmp_path / "first") == "first: 94.37 M to 23.59 M parameters (25 %)"


def test_rows_that_are_damaged_are_left_out(tmp_path):
    odd = [{"update": "x"}, {"other": 1}, {"update": 2, "loss": float("inf")}, {"update": 10**400}]
    write_log(tmp_path / "stage1", [{"update": 1, "distillation": 2.0}, *odd])
    assert read_log(tmp_path / "stage1") == [{"update": 1, "distillation": 2.0}]
    assert read_log(tmp_path / "stage2") == []


def test_units_are_drawn(tmp_path):
    config = tiny("hubert").config
    plot_units(config, config, tmp_path / "x.png")
    assert matplotlib.image.imread(tmp_path / "x.png").shape[2] == 4
