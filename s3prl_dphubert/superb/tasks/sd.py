"""Speaker diarization on Libri2Mix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...utils.readers import read_table
from ..metrics.by_voice import DiarizationErrors
from ..metrics.parsers import Diarization
from ..submission import prediction_formats
from ..submission.item_rules import TEST_CLEAN, ItemRules, one_of
from .audio_lists import SPLITS, kaldi_audio
from .spec import HIGHER, LOWER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the recordings of each split."""
    folders = config["downstream_expert"]["loaderrc"]
    return {split: kaldi_audio(Path(folders[f"{split}_dir"])) for split in SPLITS}


def test_names(data: Path | None) -> frozenset[str] | None:
    """Return the names of the test mixtures, from the table below the data; ``None`` if it is not there."""
    table = data / "Libri2Mix/wav16k/max/metadata/mixture_test_mix_both.csv" if data else None
    if table is None or not table.is_file():
        return None
    rows = read_table(table, ("mixture_ID",), separator=",", quoted=True)
    return frozenset(row["mixture_ID"] for row in rows)


TASK = SuperbTask(
    name="SD",
    title="speaker diarization",
    track=SUPERB,
    position=7,
    downstream="diarization",
    metrics=(
        Metric(
            *("der", "DER", "%", LOWER, Diarization()), fbank=10.05, sota=5.62, statistic=DiarizationErrors()
        ),
    ),
    checkpoint="best-states-dev.ckpt",
    dev_better=HIGHER,  # s3prl develops on the accuracy of frames
    packages=("h5py", "pandas", "scipy", "soundfile"),
    reuse=FeatureReuse(
        reason="chunks with fixed borders, other ones in the test set than in the development set"
    ),
    audio=audio,
    predictions=(
        Prediction(
            entry="sd_public/scoring/predictions",
            source="scoring/predictions",
            format=prediction_formats.speaker_activities,
            files="*.h5",
            count=3000,
            origin="test mixtures of Libri2Mix",
            rules=ItemRules(
                pattern=f"{TEST_CLEAN}_{TEST_CLEAN}",
                form="UTTERANCE_UTTERANCE of test-clean",
                value=one_of("number of speakers", ["2"]),
                names=test_names,
            ),
            max_bytes=2**18,
        ),
        Prediction(
            entry="sd_public/frame_shift",
            source="frame_shift",
            format=prediction_formats.frame_shift,
        ),
    ),
)
