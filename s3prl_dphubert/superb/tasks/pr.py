"""Phoneme recognition on LibriSpeech."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...utils import resources
from ..metrics.by_voice import TextErrors
from ..metrics.parsers import Printed
from ..submission import prediction_formats
from ..submission.item_rules import TEST_CLEAN, ItemRules, librispeech_names, words_of
from .audio_lists import ctc_splits, matching
from .spec import LOWER, SUPERB, Metric, Prediction, SuperbTask


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the FLAC files of the splits in use."""
    root = Path(config["downstream_expert"]["corpus"]["path"])
    return {
        split: [file for name in names for file in matching(root / name, "**/*.flac")]
        for split, names in ctc_splits(config).items()
    }


@cache
def _vocabulary() -> Callable[[str], str]:
    """Return the check for the phonemes of the recipe."""
    path = resources.find("downstream_recipes/pr/phonemes.txt")
    return words_of("phoneme", path.read_text(encoding="utf8").split())


def phoneme_fault(value: str) -> str:
    """Return the fault of a text that has other phonemes than the recipe's; empty if it has none."""
    return _vocabulary()(value)


TASK = SuperbTask(
    name="PR",
    title="phoneme recognition",
    track=SUPERB,
    position=1,
    downstream="ctc",
    metrics=(
        Metric(
            *("per", "PER", "%", LOWER, Printed("test per: {}", 100)),
            fbank=82.01,
            sota=3.53,
            statistic=TextErrors("test"),
        ),
    ),
    audio=audio,
    predictions=(
        Prediction(
            entry="pr_public/predict.ark",
            source="test-hyp.ark",
            format=prediction_formats.texts,
            count=2620,
            origin="LibriSpeech test-clean",
            rules=ItemRules(
                pattern=TEST_CLEAN,
                form="SPEAKER-CHAPTER-NUMBER of test-clean",
                value=phoneme_fault,
                names=librispeech_names,
            ),
        ),
    ),
)
