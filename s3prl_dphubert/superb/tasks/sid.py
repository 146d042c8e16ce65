"""Speaker identification on VoxCeleb1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError, shown
from ...upstream.downstream_sampling import RANDOM_CROPS
from ...utils.readers import read_words
from ..metrics.by_voice import Accuracy
from ..metrics.parsers import TEST_ACCURACY
from ..submission import prediction_formats
from ..submission.item_rules import ItemRules, one_of
from .spec import HIGHER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask

SPLITS = {"1": "train", "2": "dev", "3": "test"}  # as the published list of utterances numbers them
SPEAKERS = tuple(f"id{10_001 + number}" for number in range(1251))


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the utterances of each split, which may be in either part of VoxCeleb1."""
    data = config["downstream_expert"]["datarc"]
    files: dict[str, list[Path]] = {split: [] for split in SPLITS.values()}
    root = Path(data["file_path"])
    for number, name, *_ in read_words(Path(data["meta_data"]), least=2):
        if number not in SPLITS:
            raise DataError(f"{data['meta_data']}: split is {shown(number)}, allowed: {', '.join(SPLITS)}")
        places = [root / part / "wav" / name for part in ("dev", "test")]
        files[SPLITS[number]].append(next((place for place in places if place.exists()), places[0]))
    return files


def test_names(data: Path | None) -> frozenset[str] | None:
    """Return the names of the test set, from the published split; ``None`` if it is not on this machine."""
    from ..prepare.voxceleb import SPLIT

    path = SPLIT.local(data)
    if path is None:
        return None
    rows = read_words(path, least=2)
    return frozenset("-".join(Path(name).with_suffix("").parts) for part, name, *_ in rows if part == "3")


TASK = SuperbTask(
    name="SID",
    title="speaker identification",
    track=SUPERB,
    position=5,
    downstream="voxceleb1",
    metrics=(
        Metric(*("acc", "Acc", "%", HIGHER, TEST_ACCURACY), fbank=20.058174, sota=90.3, statistic=Accuracy()),
    ),
    packages=("librosa",),
    reuse=FeatureReuse(
        training=False,
        evaluation=False,
        reason=f"in training s3prl {RANDOM_CROPS['voxceleb1']}; the test set is evaluated once only",
    ),
    audio=audio,
    predictions=(
        Prediction(
            entry="sid_public/predict.txt",
            source="test_predict.txt",
            format=prediction_formats.labels,
            count=8251,
            origin="identification split of VoxCeleb1",
            rules=ItemRules(
                pattern=r"id1(?:0\d{3}|1[01]\d\d|12[0-4]\d|125[01])-[\w-]{11}-\d{5}",
                form="SPEAKER-VIDEO-NUMBER of VoxCeleb1",
                value=one_of("speaker", SPEAKERS),
                names=test_names,
            ),
        ),
    ),
)
