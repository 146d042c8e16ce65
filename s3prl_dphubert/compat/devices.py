"""ASV on the CPU, and on a GPU that is not the first."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from .patch import Patch, swapped


def _hard_coded(expert: Any) -> bool:
    return ".cuda()" in inspect.getsource(expert.DownstreamExpert.forward)


def _follow_features(expert: Any) -> None:
    import torch

    forward = expert.DownstreamExpert.forward

    @functools.wraps(forward)
    def on_the_features_device(self, mode, features, *args, **kwargs):
        device = features[0].device
        with swapped(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor.to(device)):
            return forward(self, mode, features, *args, **kwargs)

    expert.DownstreamExpert.forward = on_the_features_device


PATCHES = (
    Patch(
        name="sv_voxceleb1 device",
        module="s3prl.downstream.sv_voxceleb1.expert",
        reason="ASV moves its attention mask to cuda whatever --device says, and fails on the CPU",
        versions="s3prl 0.4.18; until the mask goes where the features are",
        needed=_hard_coded,
        apply=_follow_features,
    ),
)
