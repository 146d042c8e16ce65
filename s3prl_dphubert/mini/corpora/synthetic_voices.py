"""Voices of eSpeak NG for the tasks whose speech is synthesised, and who of them is heard where."""

from __future__ import annotations

from ..sources.espeak import Voice
from ..utterance import generator
from ..voices import DEV, TEST, TRAIN

ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029")
VARIANTS: dict[str, tuple[str, ...]] = {
    TRAIN: ("m1", "m2", "m3", "f1", "f2", "f3", "Andy", "Annie", "Gene", "Lee", "Mario", "steph"),
    DEV: ("m6", "f5", "Michael"),
    TEST: ("m7", "m8", "f4", "belinda", "Alex", "paul"),
}
"""A variant is a speaker; one formant synthesiser speaks them all, so they differ far less than people do."""


def speakers(split: str) -> list[str]:
    """Accent and variant of each speaker of a split, as eSpeak NG calls them."""
    ordered = [variant for each in (TRAIN, DEV, TEST) for variant in VARIANTS[each]]
    return [f"{ACCENTS[ordered.index(variant) % len(ACCENTS)]}+{variant}" for variant in VARIANTS[split]]


def varied(speaker: str, *purpose: str | int) -> Voice:
    """A speaker in one of many moods: other rate, pitch and loudness each time."""
    random = generator("synthetic", speaker, *purpose)
    return Voice(
        speaker,
        rate=int(random.integers(135, 200)),
        pitch=int(random.integers(38, 63)),
        range=int(random.integers(35, 70)),
        volume=int(random.integers(60, 110)),
    )
