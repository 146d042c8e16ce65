"""Preparation: from corpora as their publishers give them to what s3prl's tasks read.

``step.py`` says what a step is and when it is made anew, ``fetch.py`` gets lists that lie elsewhere; one
module per corpus has its steps. A recipe names those it needs in its ``recipe.yaml``. A new step is one
:class:`Step` in the tuple below.
"""

from __future__ import annotations

from . import (
    common_voice,
    covost,
    iemocap,
    kaldi,
    librimix,
    librispeech,
    quesst,
    separation,
    snips,
    vcc2020,
    voicebank,
    voxceleb,
)
from .step import Config, Step

STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        librispeech.LENGTHS,
        librispeech.LEXICON,
        voxceleb.SPEAKERS,
        voxceleb.TRIALS,
        librimix.KALDI,
        iemocap.FOLDS,
        snips.SLOTS,
        quesst.LISTS,
        kaldi.PLACES,
        voicebank.LISTS,
        separation.LISTS,
        vcc2020.SPEAKERS,
        *common_voice.STEPS,
        covost.TABLES,
    )
}
"""Name in ``recipe.yaml`` -> step."""

__all__ = ["STEPS", "Config", "Step"]
