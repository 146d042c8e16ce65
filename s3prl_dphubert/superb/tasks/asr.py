"""Speech recognition on LibriSpeech."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils.files import visible_files
from ..metrics.by_voice import TextErrors
from ..metrics.parsers import Printed, WordErrors
from ..submission import prediction_formats
from ..submission.item_rules import TEST_CLEAN, ItemRules, PredictedItem, librispeech_names, spelled_with
from .audio_lists import matching
from .spec import LOWER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask

TEST = "test-clean"


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the utterances of the splits in use."""
    data = config["downstream_expert"]["datarc"]
    splits = dict.fromkeys(["train", *config["runner"]["eval_dataloaders"], TEST])
    return {split: [file for name in data[split] for file in utterances(data, name)] for split in splits}


def utterances(data: Mapping[str, Any], split: str) -> list[Path]:
    """Return the audio of one folder of LibriSpeech, as the preparation lists it."""
    root = Path(data["libri_root"], split)
    return visible_files(root, "*/*/*.flac") or matching(root, "*/*/*.wav")


def _together(items: Sequence[PredictedItem], data: Path | None) -> Iterable[str]:
    words = [word for item in items for word in item.value.split()]
    if len(words) > 5 * len(items) and sum(len(word) == 1 for word in words) > 0.9 * len(words):
        yield "has single letters for words, allowed: words with spaces between them"


RULES = ItemRules(
    pattern=TEST_CLEAN,
    form="SPEAKER-CHAPTER-NUMBER of test-clean",
    value=spelled_with("A-Z'"),
    names=librispeech_names,
    together=_together,
)

TASK = SuperbTask(
    name="ASR",
    title="speech recognition",
    track=SUPERB,
    position=2,
    downstream="asr",
    metrics=(
        Metric(
            *("wer", "WER", "%", LOWER, Printed("test-clean wer: {}")),
            fbank=23.18,
            sota=3.62,
            statistic=TextErrors("test-clean-noLM"),
        ),
        Metric(
            *("cer", "CER", "%", LOWER, WordErrors("test-clean-noLM", characters=True)),
            extra=True,
            statistic=TextErrors("test-clean-noLM", characters=True),
        ),
        Metric("wer_lm", "WER with LM", "%", LOWER, WordErrors("test-clean-LM"), optional=True),
    ),
    split=TEST,
    checkpoint="dev-clean-best.ckpt",
    packages=("pandas",),
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
