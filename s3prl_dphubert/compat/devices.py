"""Repairs that let ASV, enhancement and separation run on the CPU, or on a GPU other than the first."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from .mask_downstreams import DOWNSTREAMS
from .patch import Patch, swapped, wrap


def _mask_on_cuda(expert: Any) -> bool:
    return ".cuda()" in inspect.getsource(expert.DownstreamExpert.forward)


def _mask_with_features(expert: Any) -> None:
    import torch

    def forward(original, self, mode, features, *args, **kwargs):
        device = features[0].device
        with swapped(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor.to(device)):
            return original(self, mode, features, *args, **kwargs)

    wrap(expert.DownstreamExpert, "forward", forward)


def _device_chosen_at_import(expert: Any) -> bool:
    return "device" in vars(expert) and "device" not in inspect.signature(expert.SepRNN.forward).parameters


def _device_of_features(expert: Any) -> None:
    import torch

    loss = sys.modules[f"{expert.__package__}.loss"]

    def init(original, self, *args, **kwargs):
        with swapped(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor):
            original(self, *args, **kwargs)

    def forward(original, self, mode, features, *args, **kwargs):
        device = features[0].device
        if hasattr(self.objective, "window"):
            self.objective.window = self.objective.window.to(device)
        with swapped(expert, "device", device), swapped(loss, "device", device):
            return original(self, mode, features, *args, **kwargs)

    wrap(expert.DownstreamExpert, "__init__", init)
    wrap(expert.DownstreamExpert, "forward", forward)


PATCHES = (
    Patch(
        name="sv_voxceleb1 device",
        module="s3prl.downstream.sv_voxceleb1.expert",
        reason="ASV moves its attention mask to CUDA whatever --device says, and fails on the CPU",
        versions="s3prl 0.4.18; until the mask is created on the device of the features",
        needed=_mask_on_cuda,
        apply=_mask_with_features,
    ),
    *(
        Patch(
            name=f"{name} device",
            module=f"s3prl.downstream.{name}.expert",
            reason="SE and SS compute on the first GPU if there is one, whatever --device says",
            versions="s3prl 0.4.18; until the tensors are created on the device of the features",
            needed=_device_chosen_at_import,
            apply=_device_of_features,
        )
        for name in DOWNSTREAMS
    ),
)
