"""Which hidden states of a task can be kept."""

from __future__ import annotations

from dataclasses import dataclass

from ...upstream.cached_expert import CROPPED


@dataclass(frozen=True)
class Reuse:
    """Whether a task's waveforms come again.

    Args:
        training: in training, epoch after epoch.
        evaluation: from one evaluation to the next.
        why: what s3prl's data set does to them.
    """

    training: bool
    evaluation: bool
    why: str


_WHOLE = "whole files"


REUSE: dict[str, Reuse] = {
    "PR": Reuse(True, True, _WHOLE),
    "ASR": Reuse(True, True, f"{_WHOLE}; SpecAugment masks hidden states, not waveforms"),
    "KS": Reuse(
        True,
        True,
        "whole files but for silence, one in twelve in training, which is cut out of recordings of a minute "
        "at random; so an utterance is stored when it is met for the second time",
    ),
    "QbE": Reuse(True, True, f"{_WHOLE}; every layer that is tried evaluates the same"),
    "SID": Reuse(
        False, False, f"in training s3prl {CROPPED['voxceleb1']}; the test set is evaluated once only"
    ),
    "ASV": Reuse(
        False,
        True,
        f"in training s3prl {CROPPED['sv_voxceleb1']}; in evaluation, once for each checkpoint, come whole "
        "files with their silence cut out, always alike",
    ),
    "SD": Reuse(
        True, True, "chunks with fixed borders, other ones in the test set than in the development set"
    ),
    "ER": Reuse(True, True, f"{_WHOLE}; all folds share them"),
    "IC": Reuse(True, True, _WHOLE),
    "SF": Reuse(True, True, f"{_WHOLE}; SpecAugment masks hidden states, not waveforms"),
    "SE": Reuse(True, True, _WHOLE),
    "SS": Reuse(True, True, _WHOLE),
    "ST": Reuse(True, True, _WHOLE),
    "VC": Reuse(True, True, f"{_WHOLE}; the sources are shared by all target speakers"),
    "OOD-ASR": Reuse(True, True, _WHOLE),
}
"""What s3prl 0.4.18 does to the waveforms of each task, read in its data sets."""
