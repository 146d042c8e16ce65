"""Speaker verification on VoxCeleb1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...upstream.downstream_sampling import RANDOM_CROPS
from ..metrics.parsers import Printed
from ..submission import prediction_formats
from .spec import LOWER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask


def audio(config: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the utterances of the trials; training crops, so that it has nothing to cache."""
    data = config["downstream_expert"]["datarc"]
    lines = Path(data["test_meta_data"]).read_text(encoding="utf8").splitlines()
    yield from (Path(data["file_path"], "test/wav", name) for line in lines for name in line.split()[1:])


TASK = SuperbTask(
    name="ASV",
    title="speaker verification",
    track=SUPERB,
    position=6,
    downstream="sv_voxceleb1",
    metrics=(
        Metric("eer", "EER", "%", LOWER, Printed("sv-voxceleb1/test-EER: {}", 100), fbank=9.56, sota=5.11),
    ),
    checkpoint="states-*.ckpt",
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
        ),
    ),
)
