"""Enhancement and separation that estimate silence, as a mask does that learned at too high a rate."""

from __future__ import annotations

import functools
from typing import Any

from . import stft
from .patch import Patch


def _fails(expert: Any) -> bool:
    import numpy as np

    try:
        expert.postprocess(np.zeros(4096, dtype=np.float32))
    except ValueError:
        return True
    return False


def _pass_silence(expert: Any) -> None:
    postprocess = expert.postprocess

    @functools.wraps(postprocess)
    def or_silence(x, *args, **kwargs):
        return postprocess(x, *args, **kwargs) if x.any() else x

    expert.postprocess = or_silence


PATCHES = tuple(
    Patch(
        name=f"{name} silence",
        module=f"s3prl.downstream.{name}.expert",
        reason="an estimate of nothing ends the training, and the sweep of rates it is part of, a ValueError",
        versions="s3prl 0.4.18; until postprocess looks for an end of sound only where there is sound",
        needed=_fails,
        apply=_pass_silence,
    )
    for name in stft.DOWNSTREAMS
)
