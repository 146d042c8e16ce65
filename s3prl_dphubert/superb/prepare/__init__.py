"""Preparation: from corpora as their publishers give them to the files that s3prl's tasks read.

Each corpus has a module with its steps; a recipe names those that it needs in its ``recipe.yaml``. ``step``
defines a step and decides whether it has to be done again, ``fetch`` gets files that lie elsewhere,
``corpus_files`` reads and checks the files of a corpus. A new step is one :class:`PreparationStep` in the
tuple below.
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
from .step import Config, PreparationStep

STEPS: dict[str, PreparationStep] = {
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

__all__ = ["STEPS", "Config", "PreparationStep"]
