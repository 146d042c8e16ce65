"""ASV, enhancement and separation on the CPU, and on a GPU that is not the first."""

from __future__ import annotations

import functools
import inspect
import sys
from contextlib import ExitStack
from typing import Any

from . import stft
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


def _chosen_at_import(expert: Any) -> bool:
    return "device" in vars(expert) and "device" not in inspect.signature(expert.SepRNN.forward).parameters


def _follow_features_in_losses(expert: Any) -> None:
    import torch

    loss = sys.modules[f"{expert.__package__}.loss"]
    init, forward = expert.DownstreamExpert.__init__, expert.DownstreamExpert.forward

    @functools.wraps(init)
    def anywhere(self, *args, **kwargs):
        with swapped(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor):
            init(self, *args, **kwargs)

    @functools.wraps(forward)
    def on_the_features_device(self, mode, features, *args, **kwargs):
        device = features[0].device
        if hasattr(self.objective, "window"):
            self.objective.window = self.objective.window.to(device)
        with ExitStack() as stack:
            for module in (expert, loss):
                stack.enter_context(swapped(module, "device", device))
            return forward(self, mode, features, *args, **kwargs)

    expert.DownstreamExpert.__init__ = anywhere
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
    *(
        Patch(
            name=f"{name} device",
            module=f"s3prl.downstream.{name}.expert",
            reason="SE and SS compute on the first GPU if there is one, whatever --device says",
            versions="s3prl 0.4.18; until the tensors go where the features are",
            needed=_chosen_at_import,
            apply=_follow_features_in_losses,
        )
        for name in stft.DOWNSTREAMS
    ),
)
