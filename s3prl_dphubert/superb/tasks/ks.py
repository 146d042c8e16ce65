"""Keyword spotting on Speech Commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..metrics.by_voice import Accuracy
from ..metrics.parsers import TEST_ACCURACY
from ..submission import prediction_formats
from ..submission.item_rules import ItemRules, file_names, one_of
from .audio_lists import matching
from .spec import HIGHER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHERS = ("_unknown_", "_silence_")


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return all words; silence is cut out of recordings as it is needed."""
    data = config["downstream_expert"]["datarc"]
    words = matching(Path(data["speech_commands_root"]), "*/*.wav")
    return {
        "train and dev": [file for file in words if file.parent.name != "_background_noise_"],
        "test": matching(Path(data["speech_commands_test_root"]), "*/*.wav"),
    }


TASK = SuperbTask(
    name="KS",
    title="keyword spotting",
    track=SUPERB,
    position=3,
    downstream="speech_commands",
    metrics=(
        Metric(
            *("acc", "Acc", "%", HIGHER, TEST_ACCURACY),
            fbank=41.3826674,
            sota=96.66,
            statistic=Accuracy(voice=r"([0-9a-f]{8})_"),
        ),
    ),
    reuse=FeatureReuse(
        reason="whole files but for silence, one in twelve in training, which is cut out of recordings of a "
        "minute at random; so an utterance is stored when it is met for the second time",
    ),
    audio=audio,
    predictions=(
        Prediction(
            entry="ks_public/predict.txt",
            source="test_predict.txt",
            format=prediction_formats.labels,
            count=3081,
            origin="test set of Speech Commands 0.01",
            rules=ItemRules(
                pattern=rf"(?:{'|'.join(WORDS)})-[0-9a-f]+_nohash_\d+(?:\.wav)+|(?:{'|'.join(OTHERS)})-[^\s/]+\.wav",
                form="CLASS-SPEAKER_nohash_NUMBER.wav",
                value=one_of("label", [*WORDS, *OTHERS]),
                names=file_names(
                    "speech_commands_test_set_v0.01/*/*.wav", lambda path: f"{path.parent.name}-{path.name}"
                ),
            ),
        ),
    ),
)
