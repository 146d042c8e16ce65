"""Slot filling on Audio SNIPS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..metrics.parsers import Printed
from ..submission import prediction_formats
from .audio_lists import ctc_splits, matching
from .spec import HIGHER, LOWER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask


def audio(config: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the utterances of each split's speakers."""
    corpus = config["downstream_expert"]["corpus"]
    for split in ctc_splits(config):
        speakers = tuple(corpus[f"{split}_speakers"])
        files = matching(Path(corpus["path"], split), "**/*.wav")
        yield from (file for file in files if file.name.startswith(speakers))


TASK = SuperbTask(
    name="SF",
    title="slot filling",
    track=SUPERB,
    position=10,
    downstream="ctc",
    metrics=(
        Metric("f1", "F1", "%", HIGHER, Printed("test slot_type_f1: {}", 100), fbank=69.64, sota=89.81),
        Metric("cer", "CER", "%", LOWER, Printed("test slot_value_cer: {}", 100), fbank=52.94, sota=21.76),
    ),
    packages=("editdistance",),
    reuse=FeatureReuse(reason="whole files; SpecAugment masks hidden states, not waveforms"),
    audio=audio,
    predictions=(  # the number of test utterances is not known for sure
        Prediction(entry="sf_public/predict.ark", source="test-hyp.ark", format=prediction_formats.texts),
    ),
)
