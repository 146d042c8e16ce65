"""Intent classification on Fluent Speech Commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...utils.readers import read_table
from ..metrics.by_voice import Accuracy
from ..metrics.parsers import TEST_ACCURACY
from ..submission import prediction_formats
from ..submission.item_rules import ItemRules, all_of
from .spec import HIGHER, SUPERB, Metric, Prediction, SuperbTask

INTENTS = {
    "action": ("activate", "bring", "change language", "deactivate", "decrease", "increase"),
    "object": (
        *("none", "Chinese", "English", "German", "Korean", "heat", "juice", "lamp", "lights", "music"),
        *("newspaper", "shoes", "socks", "volume"),
    ),
    "location": ("none", "bedroom", "kitchen", "washroom"),
}


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the commands of the table of each split."""
    root, files = Path(config["downstream_expert"]["datarc"]["file_path"]), {}
    for split in ("train", "valid", "test"):
        files[split] = [root / path for path in _paths(root / "data" / f"{split}_data.csv")]
    return files


def test_names(data: Path | None) -> frozenset[str] | None:
    """Return the names of the test set, from the table below the data; ``None`` if it is not there."""
    table = data / "fluent_speech_commands_dataset" / "data" / "test_data.csv" if data else None
    if table is None or not table.is_file():
        return None
    return frozenset(Path(path).stem for path in _paths(table))


def _paths(table: Path) -> Iterator[str]:
    return (row["path"] for row in read_table(table, ("path",), separator=",", quoted=True))


TASK = SuperbTask(
    name="IC",
    title="intent classification",
    track=SUPERB,
    position=9,
    downstream="fluent_commands",
    metrics=(
        Metric(
            *("acc", "Acc", "%", HIGHER, TEST_ACCURACY),
            fbank=9.649354219,
            sota=98.76,
            statistic=Accuracy(
                voice=r"^(\w+)-\d+$", suffix=".csv"
            ),  # FreeSUPERB's names; UUIDs tell no voice
        ),
    ),
    packages=("pandas",),
    audio=audio,
    predictions=(
        Prediction(
            entry="ic_public/predict.csv",
            source="test_predict.csv",
            format=prediction_formats.intents,
            count=3793,
            origin="test_data.csv of Fluent Speech Commands",
            rules=ItemRules(
                pattern=r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
                form="the UUID of a recording",
                value=all_of(INTENTS),
                names=test_names,
            ),
        ),
    ),
)
