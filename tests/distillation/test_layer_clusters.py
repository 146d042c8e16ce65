"""Clusters of layers against scipy's, and similarities of layers that are known to be alike."""

from __future__ import annotations

import pytest
import torch
import yaml
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from s3prl_dphubert.cli import main
from s3prl_dphubert.distillation.layer_clusters import cluster_layers, layer_similarities
from s3prl_dphubert.distillation.objective import ObjectiveConfig
from s3prl_dphubert.errors import ConfigError
from tests.helpers.compression_runs import make_place
from tests.helpers.models import tiny


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 3, 8, 13])
def test_clusters_are_those_of_scipy(seed, count):
    random = torch.rand(13, 13, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    similarities = (random + random.T) / 2
    similarities.fill_diagonal_(1)
    distances = squareform((1 - similarities).numpy(), checks=False)
    labels = fcluster(linkage(distances, "average"), count, "maxclust").tolist()
    expected = sorted([i for i, label in enumerate(labels) if label == each] for each in set(labels))
    assert cluster_layers(similarities, count) == expected


def test_similarity_knows_no_rotation_and_no_scale():
    model = tiny("hubert")
    states = model.extract_features(torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)))[0]
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))[0]
    other = torch.randn(states[1].shape, generator=torch.Generator().manual_seed(2))

    class Stub:
        def extract_features(self, waveforms):
            return [states[1], 3 * states[1] @ rotation + 1, other], None

    similarities = layer_similarities(Stub(), [torch.zeros(2, 16_000)] * 2)
    assert similarities.diagonal().tolist() == pytest.approx([1, 1, 1])
    assert similarities[0, 1].item() == pytest.approx(1, abs=1e-5)
    assert similarities[0, 2].item() < 0.7
    assert cluster_layers(similarities, 2) == [[0, 1], [2]]


def test_the_command_prints_groups_for_the_objective(tmp_path, capsys):
    place = make_place(tmp_path)
    main(["cluster-layers", str(place / "teacher"), str(place / "x.tsv"), "--clusters", "2"])
    groups = yaml.safe_load(capsys.readouterr().out)["groups"]
    assert len(groups) == 2
    assert sorted(layer for group in groups for layer in group) == [0, 1, 2, 3]
    assert ObjectiveConfig(mode="clusters", groups=groups).target_layers
    with pytest.raises(ConfigError, match="clusters is 5, allowed: 1 to the 4 hidden states"):
        cluster_layers(torch.eye(4), 5)
