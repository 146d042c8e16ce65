"""Emotion recognition on IEMOCAP, in five folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...utils.readers import read_json, reading
from ..metrics.parsers import TEST_ACCURACY
from ..submission import prediction_formats
from ..submission.item_rules import ItemRules, PredictedItem, one_of
from .audio_lists import matching
from .spec import HIGHER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask, TaskPart

FOLD_SIZES = {"fold1": 1085, "fold2": 1023, "fold3": 1151, "fold4": 1031, "fold5": 1241}

LABELS = ("neu", "hap", "ang", "sad")


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the utterances of each session, all of which every fold reads."""
    data = config["downstream_expert"]["datarc"]
    files: dict[str, set[Path]] = {}
    for table in matching(Path(data["meta_data"]), "Session*/*_meta_data.json"):
        values = read_json(table, DataError)
        with reading(table, DataError, "a list of utterances"):
            for row in values["meta_data"]:
                session = row["path"].partition("/")[0]
                files.setdefault(session, set()).add(Path(data["root"], row["path"]))
    return {session: sorted(paths) for session, paths in sorted(files.items())}


def _rules(fold: str) -> ItemRules:
    """Return what is known of a fold: utterances of its session, in dialogues that s3prl lists."""
    session = fold[-1]

    def names(data: Path | None) -> frozenset[str] | None:
        from ..prepare.iemocap import utterances

        folder = data / "IEMOCAP_full_release" / f"Session{session}" if data else None
        if folder is None or not folder.is_dir():
            return None
        return frozenset(Path(row["path"]).stem for row in utterances(folder))

    def other_dialogues(items: Sequence[PredictedItem], data: Path | None) -> Iterator[str]:
        from ..prepare.iemocap import dialogs

        known = frozenset(dialogs(f"Session{session}"))
        strange = next((item for item in items if item.name.rpartition("_")[0] not in known), None)
        if strange is not None:
            yield f"{strange.place}: {strange.name[:60]} is in no dialogue of session {session}"

    return ItemRules(
        pattern=rf"Ses0{session}[FM]_(?:impro|script)\d\d(?:_\d)?[ab]?_[FM]\w{{3,4}}",
        form=f"Ses0{session}…, an utterance of session {session}",
        value=one_of("label", LABELS),
        names=names,
        together=other_dialogues,
    )


TASK = SuperbTask(
    name="ER",
    title="emotion recognition",
    track=SUPERB,
    position=8,
    downstream="emotion",
    metrics=(Metric("acc", "Acc", "%", HIGHER, TEST_ACCURACY, fbank=48.23672168, sota=67.62),),
    parts=tuple(TaskPart(fold, override=f"downstream_expert.datarc.test_fold={fold}") for fold in FOLD_SIZES),
    packages=("librosa",),
    reuse=FeatureReuse(reason="whole files; all folds share them"),
    audio=audio,
    predictions=tuple(
        Prediction(
            entry=f"er_{fold}_public/predict.txt",
            source=f"test_{fold}_predict.txt",
            format=prediction_formats.labels,
            part=fold,
            count=size,
            origin=f"s3prl's list of IEMOCAP session {fold[-1]}",
            rules=_rules(fold),
        )
        for fold, size in FOLD_SIZES.items()
    ),
)
