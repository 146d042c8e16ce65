"""Speaker verification on VoxCeleb1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...upstream.downstream_sampling import RANDOM_CROPS
from ...utils.readers import read_words
from ..metrics.by_voice import EqualErrors
from ..metrics.parsers import Printed
from ..submission import prediction_formats
from ..submission.item_rules import ItemRules
from .audio_lists import matching
from .spec import LOWER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the utterances of the trials, and all of the training speakers."""
    data = config["downstream_expert"]["datarc"]
    root, trials = Path(data["file_path"]), read_words(Path(data["test_meta_data"]), least=3)
    tested = dict.fromkeys(name for _, *names in trials for name in names)
    return {
        "train": matching(root / "dev/wav", "*/*/*.wav"),
        "test": [root / "test/wav" / name for name in tested],
    }


_UTTERANCE = r"id10(?:2[7-9]\d|30\d)-[\w-]{11}-\d{5}"  # of the 40 speakers of the test part


def trial_names(data: Path | None) -> frozenset[str] | None:
    """Return the names of the published trials; ``None`` if their list is not on this machine."""
    from ..prepare.voxceleb import PAIRS

    path = PAIRS.local(data)
    if path is None:
        return None
    trials = read_words(path, least=3)
    return frozenset(
        "_".join("-".join(Path(name).with_suffix("").parts) for name in names) for _, *names in trials
    )


TASK = SuperbTask(
    name="ASV",
    title="speaker verification",
    track=SUPERB,
    position=6,
    downstream="sv_voxceleb1",
    metrics=(
        Metric(
            *("eer", "EER", "%", LOWER, Printed("sv-voxceleb1/test-EER: {}", 100)),
            fbank=9.56,
            sota=5.11,
            statistic=EqualErrors(),
        ),
    ),
    checkpoint="states-*.ckpt",
    tried=10,  # steps 20000, 40000 … 200000, as s3prl's script for SUPERB
    packages=("librosa", "joblib", "scipy", "sklearn=scikit-learn"),
    reuse=FeatureReuse(
        training=False,
        reason=f"in training s3prl {RANDOM_CROPS['sv_voxceleb1']}; in evaluation, once for each checkpoint, "
        "come whole files with their silence cut out, always alike",
    ),
    audio=audio,
    predictions=(
        Prediction(
            entry="sv_public/predict.txt",
            source="test_predict.txt",
            format=prediction_formats.trial_scores,
            count=37720,
            origin="voxceleb1_test_v2.txt",
            rules=ItemRules(
                pattern=f"{_UTTERANCE}_{_UTTERANCE}",
                form="UTTERANCE_UTTERANCE, each SPEAKER-VIDEO-NUMBER of VoxCeleb1's test part",
                names=trial_names,
            ),
        ),
    ),
)
