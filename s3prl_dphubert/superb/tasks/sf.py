"""Slot filling on Audio SNIPS."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metrics.by_voice import FIRST_FIELD, texts, voice_of
from ..metrics.parsers import Output, Printed, edit_distance
from ..submission import prediction_formats
from ..submission.item_rules import ItemRules, PredictedItem
from .audio_lists import ctc_splits, matching
from .spec import HIGHER, LOWER, SUPERB, FeatureReuse, Metric, Prediction, SuperbTask

if TYPE_CHECKING:
    from ..scoring.uncertainty import Ratio


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the utterances of each split's speakers."""
    corpus, files = config["downstream_expert"]["corpus"], {}
    for split, names in ctc_splits(config).items():
        speakers = tuple(corpus[f"{names[0]}_speakers"])
        listed = (file for name in names for file in matching(Path(corpus["path"], name), "**/*.wav"))
        files[split] = [file for file in listed if file.name.startswith(speakers)]
    return files


VOICES = ("Brian", "Emma", "Raveena", "Russell")
SLOTS = frozenset(
    (
        *("album", "artist", "best_rating", "city", "condition_description", "condition_temperature"),
        *("country", "cuisine", "current_location", "entity_name", "facility", "genre"),
        *("geographic_poi", "location_name", "movie_name", "movie_type", "music_item"),
        *("object_location_type", "object_name", "object_part_of_series_type", "object_select"),
        *("object_type", "party_size_description", "party_size_number", "playlist", "playlist_owner"),
        *("poi", "rating_unit", "rating_value", "restaurant_name", "restaurant_type", "served_dish"),
        *("service", "sort", "spatial_relation", "state", "timeRange", "track", "year"),
    )
)
"""Slots of SNIPS, of which s3prl writes ``B-SLOT words E-SLOT``."""
_SLOT = re.compile(r"B-(\S+) (.+?) E-\1(?!\S)")
_TAG = re.compile(r"[BE]-(\S*)")
_WORD = re.compile("<unk>|[A-Z']+")


def test_names(data: Path | None) -> frozenset[str] | None:
    """Return the names of the test set's audio below the data; ``None`` if there is none."""
    names = (path.stem for path in data.glob("SNIPS/test/*.wav")) if data else ()
    return frozenset(name for name in names if name.startswith(VOICES)) or None


def words_fault(value: str) -> str:
    """Return the fault of a text that is not of words and tags; a model may leave a tag open."""
    for word in value.split():
        if tag := _TAG.fullmatch(word):
            if tag[1] not in SLOTS:
                return f"slot {tag[1][:40]!r} is unknown, allowed: the {len(SLOTS)} slots of SNIPS"
        elif not _WORD.fullmatch(word):
            return f"word {word[:40]!r}, allowed: A-Z, ' and the tags B-SLOT and E-SLOT"
    return ""


def _has_slot(value: str) -> bool:
    """Return whether a tag is opened and closed."""
    opened = set()
    for word in value.split():
        if word.startswith("B-"):
            opened.add(word[2:])
        elif word.startswith("E-") and word[2:] in opened:
            return True
    return False


def _together(items: Sequence[PredictedItem], data: Path | None) -> Iterable[str]:
    voices = {item.name.partition("-")[0] for item in items}
    if silent := [voice for voice in VOICES if voice not in voices]:
        yield f"holds no utterance by {', '.join(silent)}"
    if not any(_has_slot(item.value) for item in items):
        yield "holds no slot, allowed: B-SLOT words E-SLOT in some utterances"


def slots(text: str) -> dict[str, list[str]]:
    """Return slot -> its values in a text, in which each stands between ``B-SLOT`` and ``E-SLOT``."""
    values: dict[str, list[str]] = {}
    for slot, value in _SLOT.findall(" ".join(text.split())):
        words = (word for word in value.split() if not _TAG.fullmatch(word))
        values.setdefault(slot, []).append(" ".join(words))
    return values


def type_f1(output: Output) -> Ratio:
    """Return the mean over utterances of the F1 of slot types in percent, by voice."""
    from ..scoring.uncertainty import Ratio

    rows = texts(output, "test")
    scores = []
    for _, hypothesis, reference in rows:
        said, true = set(slots(hypothesis)), set(slots(reference))
        scores.append(2 * len(said & true) / (len(said) + len(true)) if said or true else 1.0)
    return Ratio.of_items([voice_of(FIRST_FIELD, name) for name, _, _ in rows], scores)


def value_errors(output: Output) -> Ratio:
    """Return the character error rate in percent of the values of slots, by voice.

    A value is compared with the closest one of its slot in the hypothesis, or with nothing.
    """
    from ..scoring.uncertainty import Ratio

    voices, errors, lengths = [], [], []
    for name, hypothesis, reference in texts(output, "test"):
        said = slots(hypothesis)
        for slot, values in slots(reference).items():
            for value in values:
                tried = said.get(slot, [""])
                voices.append(voice_of(FIRST_FIELD, name))
                errors.append(min(edit_distance(list(each), list(value)) for each in tried))
                lengths.append(len(value))
    return Ratio.of_items(voices, errors, lengths)


TASK = SuperbTask(
    name="SF",
    title="slot filling",
    track=SUPERB,
    position=10,
    downstream="ctc",
    metrics=(
        Metric(
            *("f1", "F1", "%", HIGHER, Printed("test slot_type_f1: {}", 100)),
            fbank=69.64,
            sota=89.81,
            statistic=type_f1,
        ),
        Metric(
            *("cer", "CER", "%", LOWER, Printed("test slot_value_cer: {}", 100)),
            fbank=52.94,
            sota=21.76,
            statistic=value_errors,
        ),
    ),
    reuse=FeatureReuse(reason="whole files; SpecAugment masks hidden states, not waveforms"),
    audio=audio,
    predictions=(
        Prediction(
            entry="sf_public/predict.ark",
            source="test-hyp.ark",
            format=prediction_formats.texts,
            count=2800,
            least=1400,  # a few clips may be missing; how many is not published
            origin="700 test sentences of SNIPS by four voices",
            rules=ItemRules(
                pattern=rf"(?:{'|'.join(VOICES)})-snips-test-[1-6]?\d?\d",
                form=f"VOICE-snips-test-NUMBER, VOICE one of {', '.join(VOICES)}, NUMBER below 700",
                value=words_fault,
                names=test_names,
                together=_together,
            ),
        ),
    ),
)
