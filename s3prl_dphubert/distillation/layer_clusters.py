"""Clusters of similar layers of a teacher, for the mode ``clusters`` of the objective."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..errors import ConfigError
from ..model import SpeechModel

MOST_FRAMES = 1000  # of a batch that are compared, evenly spaced


@torch.no_grad()
def layer_similarities(model: SpeechModel, batches: Iterable[Tensor]) -> Tensor:
    """Compute the similarity of all hidden states by linear CKA (Kornblith et al. 2019, eq. 5).

    Args:
        model: in eval mode.
        batches: waveforms (B, T) at 16 kHz without padding, at least one.

    Returns:
        (L + 1, L + 1), means over the batches; 1 for equal layers up to rotation and scale.
    """
    totals = []
    for waveforms in batches:
        grams = []
        for states in model.extract_features(waveforms)[0]:
            frames = states.flatten(0, 1).double()
            frames = frames[:: -(-len(frames) // MOST_FRAMES)]
            frames = frames - frames.mean(0)
            gram = (frames @ frames.T).flatten()
            grams.append(gram / gram.norm())
        rows = torch.stack(grams)
        totals.append(rows @ rows.T)
    return torch.stack(totals).mean(0)


def cluster_layers(similarities: Tensor, count: int) -> list[list[int]]:
    """Merge the two most similar clusters of layers until ``count`` are left (average linkage).

    Args:
        similarities: (N, N), symmetric.
        count: number of clusters, from 1 to N.

    Returns:
        Layers of each cluster, in order.

    Raises:
        ConfigError: there are fewer layers than clusters.
    """
    if not 1 <= count <= len(similarities):
        raise ConfigError(f"clusters is {count}, allowed: 1 to the {len(similarities)} hidden states")
    clusters = [[layer] for layer in range(len(similarities))]
    while len(clusters) > count:
        pairs = [(i, j) for j in range(len(clusters)) for i in range(j)]
        i, j = max(pairs, key=lambda ij: float(similarities[clusters[ij[0]]][:, clusters[ij[1]]].mean()))
        clusters[i] = sorted(clusters[i] + clusters.pop(j))
    return sorted(clusters)
