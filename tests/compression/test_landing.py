"""Gates that end on their target: shortened runs of shipped configurations on the speech that ships."""

from __future__ import annotations

import json

import pytest

from s3prl_dphubert import compress, load_model
from s3prl_dphubert.compression import run_plots
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.compression.run_summary import render_summary
from s3prl_dphubert.data.manifest import scan, write
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.config_io import from_dict, merge, read_yaml

SHORT = {
    "data": {"valid": None, "batch": {"seconds_per_batch": 4.0, "min_seconds": 0.4, "max_seconds": 2.0}},
    "stage1": {"precision": "fp32", "log_every": 1, "save_every": 1000, "gate_lr": 0.2},
    "stage2": None,
}
UPDATES, WARMUP = 60, 20


def shortened(name, place):
    values = read_yaml(resources.find(f"upstream_configs/{name}.yaml"))
    times = {"updates": UPDATES, "warmup": WARMUP // 2}
    short = merge(SHORT, {"stage1": times, "budget": {"warmup": WARMUP}})
    return from_dict(CompressConfig, merge(values, merge(short, {"data": {"train": str(place / "x.tsv")}})))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    manifests, skipped = scan([resources.find("assets/speech")], min_seconds=0.4)
    write(folder / "x.tsv", manifests, skipped)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "free_superb", "free_superb_both"])
def test_shipped_configurations_land_on_their_target(place, tmp_path, monkeypatch, name):
    """In a fifth of the updates or less, where the penalty alone is far away; the plot says where."""
    labels = []
    monkeypatch.setattr(run_plots, "_save", lambda figure, target: labels.extend(_labels(figure)))
    config = shortened(name, place)
    assert config.budget.constraint == "projection"
    model = compress(config, tmp_path / "run")
    rows = [json.loads(row) for row in (tmp_path / "run" / "stage1" / "log.jsonl").read_text().splitlines()]
    suffixes = [f"_{count}" for count in config.budget.counts] if len(config.budget.counts) > 1 else [""]
    off = {
        suffix: rows[-1][f"sparsity{suffix}"] - rows[-1][f"target_sparsity{suffix}"] for suffix in suffixes
    }
    assert min(off.values()) == pytest.approx(0, abs=0.005)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    ends = {count: row["expected"] - row["target"] for count, row in results["sparsity"].items()}
    assert list(ends) == list(config.budget.counts)
    assert min(ends.values()) == pytest.approx(0, abs=0.005)
    assert all(f"sparsity in {count}" in render_summary(tmp_path / "run") for count in ends)
    budget = config.budget
    limits = budget.limits(budget.costs(load_model(config.teacher).config))
    used = [cost / limits[count] for count, cost in budget.costs(model.config).items()]
    assert 0.99 < max(used) <= 1
    for suffix, count in zip(suffixes, budget.counts, strict=True):
        ends = {"target": budget.shares[count], "expected": rows[-1][f"sparsity{suffix}"]}
        for name, end in ends.items():
            assert any(label.endswith(f"{name}: {100 * end:.1f} % at the end") for label in labels)


def _labels(figure):
    return [line.get_label() for axis in figure.axes for line in axis.get_lines()]
