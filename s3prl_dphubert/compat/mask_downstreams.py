"""Downstreams of s3prl that estimate masks of spectrograms: copies of each other, including their faults."""

from __future__ import annotations

from typing import Any

from .patch import Patch, wrap

DOWNSTREAMS = ("enhancement_stft", "enhancement_stft2", "separation_stft", "separation_stft2")


def _fails_on_silence(expert: Any) -> bool:
    import numpy as np

    try:
        expert.postprocess(np.zeros(4096, dtype=np.float32))
    except ValueError:
        return True
    return False


def _pass_silence(expert: Any) -> None:
    def postprocess(original, x, *args, **kwargs):
        return original(x, *args, **kwargs) if x.any() else x

    wrap(expert, "postprocess", postprocess)


PATCHES = tuple(
    Patch(
        name=f"{name} silence",
        module=f"s3prl.downstream.{name}.expert",
        reason="a silent estimate, as a mask trained at too high a learning rate gives, ends the training "
        "(and a sweep of learning rates) with a ValueError",
        versions="s3prl 0.4.18; until postprocess trims only where there is sound",
        needed=_fails_on_silence,
        apply=_pass_silence,
    )
    for name in DOWNSTREAMS
)
