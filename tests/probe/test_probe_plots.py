from matplotlib.image import imread

from s3prl_dphubert.probe.comparison import differences
from s3prl_dphubert.probe.probe_plots import plot, plot_differences
from tests.helpers.probe_records import record


def test_layers_and_models_are_drawn(tmp_path):
    models = [record(f"model {number}", 40.0 + 5 * number) for number in range(7)]
    plot(models, tmp_path / "probes.png")
    height, width, _ = imread(tmp_path / "probes.png").shape
    assert height > 700 and width > 1200
    assert not list(tmp_path.glob(".*"))


def test_differences_are_drawn(tmp_path):
    plot_differences(differences(record("a", 60.0), record("b", 50.0)), tmp_path / "d.png")
    assert imread(tmp_path / "d.png").std() > 0.05
