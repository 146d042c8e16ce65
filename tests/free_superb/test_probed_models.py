"""Probes on the page of results: several seeds, floors, and differences from a baseline."""

from __future__ import annotations

import pytest
from matplotlib.image import imread

from s3prl_dphubert.errors import ConfigError, ResultError
from s3prl_dphubert.free_superb.probed_models import ProbedModels
from tests.helpers.probe_records import record


@pytest.fixture
def folder(tmp_path):
    """Return records of a floor, a teacher, and two recipes with two seeds each."""
    record("floor", 30).write(tmp_path / "floor.probe.json")
    record("teacher", 60).write(tmp_path / "teacher.probe.json")
    for seed in (0, 1):
        record("pruned", 55, seed=seed, eer_noise=0.4).write(tmp_path / f"pruned-{seed}.probe.json")
        record("baseline", 45, seed=seed).write(tmp_path / f"baseline-{seed}.probe.json")
    return tmp_path


def test_models_have_means_over_seeds_and_differences_from_the_baseline(folder):
    probed = ProbedModels.read([folder], baseline="baseline", compared=("pruned", "teacher"))
    text = probed.section("Probes", "plot.png")
    row = next(line for line in text.splitlines() if line.startswith("| words (accuracy"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert list(probed.models) == ["baseline", "floor", "pruned", "teacher"]
    assert [cell.endswith("(2)") for cell in cells] == [True, False, True, False]
    assert [round(float(cell.split()[0])) for cell in cells] == pytest.approx([45, 30, 55, 60], abs=1)
    assert "- pruned: ahead of baseline in 5 of 5 probes; beyond chance ahead in 5 and behind in 0." in text
    assert "![Differences in every probe](plot.png)" in text
    words = next(each for each in probed.differences if (each.first, each.probe) == ("pruned", "words"))
    assert words.estimate.value == pytest.approx(10, abs=1.5)
    assert "| ahead of baseline by | pruned | teacher |" in text
    row = next(line for line in text.splitlines() if line.startswith("| words") and "[" in line)
    assert row.count("**") == 4 and f"**{words.estimate.value:+.2f}** [" in row


def test_all_models_but_the_baseline_can_be_compared(folder):
    probed = ProbedModels.read([folder], (), "baseline", None)
    assert list(probed.compared) == ["floor", "pruned", "teacher"]
    text = probed.section("Other recipes")
    assert text.startswith("## Other recipes\n") and "![" not in text
    assert "- floor: ahead of baseline in 0 of 5 probes" in text


def test_the_plot_shows_every_difference(folder, tmp_path):
    probed = ProbedModels.read([folder], baseline="baseline", compared=("pruned",))
    probed.draw(tmp_path / "plot.png")
    assert imread(tmp_path / "plot.png").shape[0] > 300
    alone = ProbedModels.read([folder])
    assert alone.differences == [] and "plot.png" not in alone.section("Probes", "plot.png")


def test_the_chain_tells_which_probes_count(folder):
    for chain, verdict in ((("floor", "baseline", "teacher"), "valid"), (("teacher", "floor"), "not valid")):
        assert f"| {verdict} |" in ProbedModels.read([folder], chain=chain).section("Probes")


def test_models_that_are_named_must_have_probes(folder, tmp_path):
    with pytest.raises(ConfigError, match="holds no probes of other, another"):
        ProbedModels.read([folder], chain=("other", "floor"), baseline="baseline", compared=("another",))
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(ResultError, match="no records of probes"):
        ProbedModels.read([empty])
