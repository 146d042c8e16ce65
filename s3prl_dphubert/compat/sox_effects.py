"""torchaudio.sox_effects on top of this package's own effects, without libsox."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any

from .patch import Patch

NAME = "torchaudio.sox_effects"


def _cannot_apply(torchaudio: Any) -> bool:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchaudio.sox_effects.apply_effects_tensor(torch.zeros(1, 160), 16_000, [["channels", "1"]])
    except Exception:  # no such module or no libsox; s3prl would fail on its first utterance
        return True
    return False


def _replace(torchaudio: Any) -> None:
    from .. import sox

    effects: Any = getattr(torchaudio, "sox_effects", None)
    if effects is None:
        effects = ModuleType(NAME, "SoX effects of torchaudio, implemented by s3prl_dphubert.sox.")
        sys.modules[NAME] = effects
        torchaudio.sox_effects = effects
    effects.apply_effects_file = sox.apply_effects_file
    effects.apply_effects_tensor = sox.apply_effects_tensor


PATCHES = (
    Patch(
        name=NAME,
        module="torchaudio",
        reason="KS, QbE, ASV and SuperbKS apply sox effects, which were removed or find no libsox.so",
        versions="torchaudio >= 2.9; older ones where libsox.so is missing",
        needed=_cannot_apply,
        apply=_replace,
    ),
)
