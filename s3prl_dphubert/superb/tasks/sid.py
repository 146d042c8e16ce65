"""Speaker identification on VoxCeleb1."""

from __future__ import annotations

from ...upstream.downstream_sampling import RANDOM_CROPS
from ..metrics.parsers import TEST_ACCURACY
from ..submission import prediction_formats
from .spec import HIGHER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask

TASK = SuperbTask(
    name="SID",
    title="speaker identification",
    track=SUPERB,
    position=5,
    downstream="voxceleb1",
    metrics=(Metric("acc", "Acc", "%", HIGHER, TEST_ACCURACY, fbank=20.058174, sota=90.3),),
    packages=("librosa",),
    reuse=FeatureReuse(
        training=False,
        evaluation=False,
        reason=f"in training s3prl {RANDOM_CROPS['voxceleb1']}; the test set is evaluated once only",
    ),
    predictions=(
        Prediction(
            entry="sid_public/predict.txt",
            source="test_predict.txt",
            format=prediction_formats.labels,
            count=8251,
            origin="identification split of VoxCeleb1",
        ),
    ),
)
