"""Speech recognition on LibriSpeech."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...constants import SAMPLE_RATE
from ..metrics.parsers import Printed, WordErrors
from ..submission import prediction_formats
from ..submission.item_rules import TEST_CLEAN, ItemRules, librispeech_names, spelled_with
from .spec import LOWER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask

TEST = "test-clean"


def audio(config: Mapping[str, Any]) -> Iterator[float]:
    """Yield the seconds that the length tables of the splits add up to."""
    data = config["downstream_expert"]["datarc"]
    for split in dict.fromkeys(["train", *config["runner"]["eval_dataloaders"], TEST]):
        for name in data[split]:
            with Path(data["bucket_file"], f"{name}.csv").open(encoding="utf8", newline="") as file:
                yield sum(int(row["length"]) for row in csv.DictReader(file)) / SAMPLE_RATE


RULES = ItemRules(
    pattern=TEST_CLEAN,
    form="SPEAKER-CHAPTER-NUMBER of test-clean",
    value=spelled_with("A-Z'"),
    names=librispeech_names,
)

TASK = SuperbTask(
    name="ASR",
    title="speech recognition",
    track=SUPERB,
    position=2,
    downstream="asr",
    metrics=(
        Metric("wer", "WER", "%", LOWER, Printed("test-clean wer: {}"), fbank=23.18, sota=3.62),
        Metric("wer_lm", "WER with LM", "%", LOWER, WordErrors("test-clean-LM"), optional=True),
    ),
    split=TEST,
    checkpoint="dev-clean-best.ckpt",
    packages=("editdistance", "pandas"),
    reuse=FeatureReuse(reason="whole files; SpecAugment masks hidden states, not waveforms"),
    audio=audio,
    predictions=(
        Prediction(
            entry="asr_public/predict.ark",
            source="test-clean-noLM-hyp.ark",
            format=prediction_formats.texts,
            count=2620,
            origin="LibriSpeech test-clean",
            rules=RULES,
        ),
        Prediction(
            entry="asr_lm_public/predict.ark",
            source="test-clean-LM-hyp.ark",
            format=prediction_formats.texts,
            count=2620,
            origin="LibriSpeech test-clean",
            rules=RULES,
            optional=True,
        ),
    ),
)
